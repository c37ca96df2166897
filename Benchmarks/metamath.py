#!/usr/bin/env python3
"""The protocol of Hugging Face PEFT's method comparison (method_comparison/MetaMathQA): a base model is fine-tuned on
MetaMathQA and evaluated on the test set of GSM8K, where an answer counts if its final number is right.

    Benchmarks/metamath.py METAMATH GSM8K OUTPUT [--model M] [--steps N] [--limit N] -- TRAIN OPTIONS

METAMATH is MetaMathQA-395K.json of meta-math/MetaMathQA, GSM8K the test set as JSON lines (`question`, `answer`). What follows
`--` are the method and its options as `peft train` has them:

    … -- --method lora --rank 32 --alpha 64 --targets q_proj,v_proj
    … -- --method dora --rank 32 --alpha 64
    … -- --method lora --rank 32 --alpha 64 --optimizer lora-fa
    … -- --method full --lr 1e-5

The settings are those of `default_training_params.json`: Llama-3.2-3B in bfloat16, 5,000 steps of 4 examples of at most 1,300
characters, AdamW with a learning rate of 1e-4 and weight decay 0.1, 10 % warm-up and a cosine, gradients clipped to 1, the loss
over questions and answers, greedy decoding of at most 300 tokens. The order of examples differs, as PEFT sorts them into
buckets by length. OUTPUT gets the adapter, the answers and `result.json`. A run takes about an hour on a GPU with 24 GB and more; peft
is the release build, or the program that PEFT_PROGRAM names.
"""
import argparse
import json
import math
import os
import re
import subprocess
import sys
from fractions import Fraction

CHARACTERS = 1300
TEMPLATE = "Question: {query} Think step by step.\\nAnswer:"


def final_number(text):
    """The number after the last `####` or `The answer is`, or the text there; None without either."""
    found = list(re.finditer(r"####|[Tt]he (?:final )?answer is:?", text))
    if not found:
        return None
    answer = text[found[-1].end():].strip().split("\n", 1)[0].strip(" .!?$%")
    answer = answer.replace(",", "").replace("$", "")
    try:
        return Fraction(answer)
    except (ValueError, ZeroDivisionError):
        return answer or None


def interval(correct, count):
    """Wilson's 95 % interval of a share."""
    z, share = 1.959964, correct / count
    center = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return center - half, center + half


def prepare(metamath, gsm8k, folder, limit):
    with open(metamath, encoding="utf-8") as file:
        rows = json.load(file)
    kept = [row for row in rows if len(f"{row['query']} {row['response']}") <= CHARACTERS]
    with open(os.path.join(folder, "train.jsonl"), "w", encoding="utf-8") as file:
        for row in kept:
            file.write(json.dumps({"query": row["query"], "response": row["response"]}) + "\n")
    with open(gsm8k, encoding="utf-8") as file:
        tests = [json.loads(line) for line in file if line.strip()]
    with open(os.path.join(folder, "test.jsonl"), "w", encoding="utf-8") as file:
        for row in tests[:limit]:
            file.write(json.dumps({"query": row["question"], "answer": row["answer"]}) + "\n")
    print(f"{len(kept):,} of {len(rows):,} examples for training, {len(tests[:limit]):,} questions", file=sys.stderr)


def main():
    arguments = sys.argv[1:]
    place = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("metamath")
    parser.add_argument("gsm8k")
    parser.add_argument("output")
    parser.add_argument("--model", default="meta-llama/Llama-3.2-3B")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--limit", type=int, default=None, help="questions of the test set")
    options = parser.parse_args(arguments[:place])
    method = arguments[place + 1:] or ["--method", "lora", "--rank", "32", "--alpha", "64"]

    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    peft = os.environ.get("PEFT_PROGRAM") or os.path.join(root, ".build", "release", "peft")
    os.makedirs(options.output, exist_ok=True)
    prepare(options.metamath, options.gsm8k, options.output, options.limit)
    place = {name: os.path.join(options.output, name) for name in ["adapter", "train.jsonl", "test.jsonl", "answers.jsonl"]}

    def run(*words):
        print("$ peft " + " ".join(words), file=sys.stderr)
        subprocess.run([peft, *words], check=True)

    common = ["--device", options.device, "--precision", "bfloat16"]
    rate = [] if any(word in ("--lr", "--learning-rate") for word in method) else ["--lr", "1e-4"]
    run(
        "train", "--model", options.model, *common, "--data", place["train.jsonl"], "--prompt", "",
        "--target", TEMPLATE + "{response}", "--steps", str(options.steps), "--batch-size", "4", "--weight-decay", "0.1",
        "--schedule", "cosine", "--warmup", "0.1", "--clip", "1", "--seed", "0", *rate, *method, "--output", place["adapter"])
    run(
        "generate", "--adapter", place["adapter"], *common, "--data", place["test.jsonl"], "--prompt", TEMPLATE,
        "--max-new-tokens", "300", "--output", place["answers.jsonl"])

    with open(place["answers.jsonl"], encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    correct = sum(
        known is not None and known == final_number(row["output"])
        for row, known in ((row, final_number(row["answer"])) for row in rows))
    low, high = interval(correct, len(rows))
    with open(os.path.join(place["adapter"], "training.json"), encoding="utf-8") as file:
        training = json.load(file)
    result = {
        "method": method, "model": options.model, "steps": options.steps, "questions": len(rows),
        "accuracy": correct / len(rows), "low": low, "high": high, "trainable": training.get("trainable"),
        "seconds": training.get("seconds"), "tokensPerSecond": training.get("tokensPerSecond"),
    }
    with open(os.path.join(options.output, "result.json"), "w", encoding="utf-8") as file:
        json.dump(result, file, indent=2)
    print(f"accuracy {100 * correct / len(rows):.1f} % [{100 * low:.1f}, {100 * high:.1f}] of {len(rows):,} questions")


if __name__ == "__main__":
    main()
