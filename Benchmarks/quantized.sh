#!/usr/bin/env bash
# What adapting a quantized base costs, as reported in RESULTS.md: a Llama of 656,000 parameters learns WikiText-2.
#
#     Benchmarks/quantized.sh DATA OUTPUT [BITS …]
#
# DATA holds wikitext-2/ and tinystories-656k-hf/. For each number of bits (4, 3, 2 if none are given), in groups of 32:
# the rounded base (to the nearest, and by GPTQ), QA-LoRA over the latter, beside it and merged with zeros of each kind,
# LoRA over the same base, beside it and merged, which rounds anew, and LoRA in full precision rounded by GPTQ afterwards.
# PEFT_PROGRAM names another program than the release build's.
set -euo pipefail
[[ $# -ge 2 ]] || { sed -n '2,10p' "$0" >&2; exit 64; }
data=$1 output=$2
shift 2
[[ $# -gt 0 ]] || set -- 4 3 2
peft=${PEFT_PROGRAM:-"$(cd "$(dirname "$0")/.." && pwd)/.build/release/peft"}
stories=$data/tinystories-656k-hf
mkdir -p "$output"
paragraphs='!/^ =/ && NF >= 20 && NF <= 120 && count++ < most'
awk -v most=3000 "$paragraphs" "$data/wikitext-2/train.txt" >"$output/train.txt"
awk -v most=500 "$paragraphs" "$data/wikitext-2/test.txt" >"$output/test.txt"

# evaluate NAME OPTION …: a line of the table.
evaluate() {
    local name=$1
    shift
    "$peft" evaluate --threads 1 "$@" --data "$output/test.txt" --prompt '' --target '{text}' --max-new-tokens 1 --json \
        >"$output/result.json"
    python3 - "$name" "$output/result.json" <<'PYTHON' | tee -a "$output/table.txt"
import json, sys
result = json.load(open(sys.argv[2]))
value = result["quality"]["perplexity"]
print(f"| {sys.argv[1]} | {value['value']:.2f} [{value['low']:.2f}, {value['high']:.2f}] | {result['loss']:.4f} |")
PYTHON
}

# train MODEL OUTPUT OPTION …
train() {
    local model=$1 folder=$2
    shift 2
    [[ -d $folder ]] || "$peft" train --threads 1 --model "$model" --data "$output/train.txt" --prompt '' \
        --target '{text}' --rank 16 --targets all-linear --schedule linear --warmup 50 --epochs 1 --batch-size 8 \
        --output "$folder" --json "$@" >"$folder.json"
}

# merged NAME ADAPTER FOLDER OPTION …: a merged model, and its line.
merged() {
    local name=$1 adapter=$2 folder=$3
    shift 3
    rm -rf "$folder"
    "$peft" merge "$adapter" --output "$folder" "$@" >"$folder.txt"
    evaluate "$name" --model "$folder"
}

: >"$output/table.txt"
evaluate "base, fp32" --model "$stories"
train "$stories" "$output/lora" --method lora --alpha 32 --lr 3e-3
evaluate "LoRA r 16, fp32" --adapter "$output/lora"
merged "LoRA merged, fp32" "$output/lora" "$output/lora-merged"
for bits in "$@"; do
    for method in rtn gptq; do
        base=$output/int$bits-$method
        rm -rf "$base"
        "$peft" quantize --model "$stories" --to "int$bits" --group 32 --method "$method" \
            --calibration "$output/train.txt" --prompt '' --target '{text}' --limit 128 --output "$base" >"$base.txt"
        evaluate "int$bits base, $method" --model "$base"
    done
    train "$base" "$output/qalora-$bits" --method qalora --group-pooling sum --alpha 32 --lr 3e-3
    evaluate "int$bits QA-LoRA, beside the base" --adapter "$output/qalora-$bits"
    for zeros in float32 float16 rounded; do
        merged "int$bits QA-LoRA merged, zeros $zeros" "$output/qalora-$bits" "$output/qalora-$bits-$zeros" --zeros "$zeros"
    done
    train "$base" "$output/lora-$bits" --method lora --alpha 32 --lr 3e-3
    evaluate "int$bits base with LoRA in fp32 beside it" --adapter "$output/lora-$bits"
    merged "the same merged, rounded to the nearest" "$output/lora-$bits" "$output/lora-$bits-merged"
    rm -rf "$output/lora-gptq-$bits"
    "$peft" quantize --model "$output/lora-merged" --to "int$bits" --group 32 --calibration "$output/train.txt" \
        --prompt '' --target '{text}' --limit 128 --output "$output/lora-gptq-$bits" >"$output/lora-gptq-$bits.txt"
    evaluate "LoRA in fp32, then GPTQ int$bits" --model "$output/lora-gptq-$bits"
done
