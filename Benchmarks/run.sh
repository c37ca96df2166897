#!/usr/bin/env bash
# Measures against Hugging Face PEFT, in a Python environment of its own outside the checkout. Called by `make bench`.
# Arguments go to training.py.
set -euo pipefail
cd "$(dirname "$0")/.."
environment="${XDG_CACHE_HOME:-$HOME/.cache}/swift-peft/bench-python"
if [[ ! -e $environment/ready ]]; then
    echo "making a Python environment with PyTorch, transformers and PEFT in $environment"
    python3 -m venv "$environment"
    "$environment/bin/pip" install --quiet torch transformers peft safetensors numpy
    touch "$environment/ready"
fi
"$environment/bin/python" Benchmarks/training.py "$@"
