#!/usr/bin/env bash
# Compares the base model, full fine-tuning and LoRA on the example dataset, beside baselines without a model. Called by
# `make demo` after the build.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p demo
rm -f demo/report.html demo/report.json
start=$(date +%s)
.build/release/peft compare \
    --model tiny-t5 \
    --methods 'base,full,lora(rank=32,alpha=256,targets=all-linear)' \
    --baselines 'constant,typical(topic),longest-line' \
    --data Examples/dialogues/train.jsonl \
    --validation Examples/dialogues/validation.jsonl \
    --test Examples/dialogues/test.jsonl --limit-test 100 \
    --prompt 'Key facts: {dialogue}' \
    --target '{facts}' \
    --lr full=1.5e-3,lora=1e-3 --steps 500 --batch-size 8 --warmup 20 --max-new-tokens 60 --no-repeat-ngram 4 \
    --html demo/report.html --output demo/report.json
echo "finished in $(($(date +%s) - start)) s; open demo/report.html for loss curves, costs and sample outputs"
