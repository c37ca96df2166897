#!/usr/bin/env bash
# Measures against Hugging Face PEFT, in a Python environment of its own outside the checkout. Called by `make bench`.
# Arguments go to training.py; after the word `generation`, to generation.py.
set -euo pipefail
cd "$(dirname "$0")/.."
environment="${XDG_CACHE_HOME:-$HOME/.cache}/swift-peft/bench-python"
if [[ ! -e $environment/ready ]]; then
    echo "making a Python environment with PyTorch, transformers and PEFT in $environment"
    python3 -m venv "$environment"
    "$environment/bin/pip" install --quiet torch transformers peft safetensors numpy
    touch "$environment/ready"
fi
script=training
if [[ ${1:-} == generation ]]; then
    script=generation
    shift
fi
"$environment/bin/python" "Benchmarks/$script.py" "$@"
