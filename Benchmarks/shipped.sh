#!/usr/bin/env bash
# What each way to a quantized model costs, as reported in RESULTS.md: a Llama of 656,000 parameters learns WikiText-2.
#
#     Benchmarks/shipped.sh DATA OUTPUT [SEEDS]
#
# DATA holds wikitext-2/ and tinystories-656k-hf/. One `peft compare` of LoRA, QLoRA and QA-LoRA whose rows are also merged
# and stored as nf4 and int4, to the nearest and by GPTQ. PEFT_PROGRAM names another program than the release build's.
set -euo pipefail
[[ $# -ge 2 ]] || { sed -n '2,7p' "$0" >&2; exit 64; }
data=$1 output=$2 seeds=${3:-3}
peft=${PEFT_PROGRAM:-"$(cd "$(dirname "$0")/.." && pwd)/.build/release/peft"}
mkdir -p "$output"
paragraphs='!/^ =/ && NF >= 20 && NF <= 120 && count++ < most'
awk -v most=3000 "$paragraphs" "$data/wikitext-2/train.txt" >"$output/train.txt"
awk -v most=500 "$paragraphs" "$data/wikitext-2/test.txt" >"$output/test.txt"
awk -v most=200 "$paragraphs" "$data/wikitext-2/valid.txt" >"$output/valid.txt"
lora='rank=16,alpha=32'
base=int4-g32-gptq
methods="base,base(weights=nf4),base(weights=$base),lora($lora,targets=all-linear),qlora($lora,weights=nf4),qlora($lora)"
methods+=",qalora($lora,targets=all-linear,group-pooling=sum,weights=$base)"
"$peft" compare --threads 1 --model "$data/tinystories-656k-hf" --methods "$methods" \
    --quantize-after nf4,int4-g32,int4-g32-gptq --seeds "$seeds" --lr 3e-3 --schedule linear --warmup 50 --epochs 1 \
    --batch-size 8 --data "$output/train.txt" --validation "$output/valid.txt" --validate-every 25 \
    --test "$output/test.txt" --prompt '' --target '{text}' --max-new-tokens 1 --html "$output/shipped.html" \
    --output "$output/shipped.json"
