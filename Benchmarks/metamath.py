#!/usr/bin/env python3
"""The protocol of Hugging Face PEFT's method comparison (method_comparison/MetaMathQA): a base model is fine-tuned on
MetaMathQA and evaluated on the test set of GSM8K, where an answer counts if its final number is right.

    Benchmarks/metamath.py TRAIN GSM8K OUTPUT [options] -- TRAIN OPTIONS [-- TRAIN OPTIONS …]

TRAIN is MetaMathQA-395K.json of meta-math/MetaMathQA, or GSM8K's own training set as JSON lines; GSM8K is the test set as JSON lines
(`question`, `answer`). What follows each `--` are a method and its options as `peft train` has them:

    … -- --method lora --rank 32 --alpha 64 --targets q_proj,v_proj
    … -- --method dora --rank 32 --alpha 64
    … -- --method lora --rank 32 --alpha 64 --optimizer lora-fa
    … -- --method full --lr 1e-5

The settings are those of `default_training_params.json`: Llama-3.2-3B in bfloat16, 5,000 steps of 4 examples of at most 1,300
characters, AdamW with a learning rate of 1e-4 and weight decay 0.1, 10 % warm-up and a cosine, gradients clipped to 1, the loss
over questions and answers, greedy decoding of at most 300 tokens. The order of examples differs, as PEFT sorts them into
buckets by length. OUTPUT gets the adapters, the answers and `result.json`. A run takes about an hour on a GPU with 24 GB and more; peft
is the release build, or the program that PEFT_PROGRAM names.

`--small` is the same protocol at a scale that a CPU runs in minutes, with GSM8K's training set, a small decoder (`--model`), higher
rates, 300 steps, 100 questions, at most 120 new tokens and three seeds. Such a model hardly solves any question, so the result is the
loss of the test answers; the share of right answers is reported as well.
"""
import argparse
import json
import math
import os
import re
import statistics
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
    return max(0, center - half), min(1, center + half)


def response(answer):
    """An answer of GSM8K in the form of MetaMathQA's."""
    return f" {answer}\nThe answer is: {answer.rsplit('####', 1)[-1].strip()}"


def read(path):
    with open(path, encoding="utf-8") as file:
        if path.endswith(".jsonl"):
            rows = [json.loads(line) for line in file if line.strip()]
            return [{"query": row["question"], "response": response(row["answer"])} for row in rows]
        return json.load(file)


def prepare(train, gsm8k, folder, limit):
    rows = read(train)
    kept = [row for row in rows if len(f"{row['query']} {row['response']}") <= CHARACTERS]
    with open(os.path.join(folder, "train.jsonl"), "w", encoding="utf-8") as file:
        for row in kept:
            file.write(json.dumps({"query": row["query"], "response": row["response"]}) + "\n")
    with open(gsm8k, encoding="utf-8") as file:
        tests = [json.loads(line) for line in file if line.strip()]
    with open(os.path.join(folder, "test.jsonl"), "w", encoding="utf-8") as file:
        for row in tests[:limit]:
            line = {"query": row["question"], "answer": row["answer"], "response": response(row["answer"])}
            file.write(json.dumps(line) + "\n")
    print(f"{len(kept):,} of {len(rows):,} examples for training, {len(tests[:limit]):,} questions", file=sys.stderr)


def parsed():
    """The options, and those of each method."""
    groups = [[]]
    for word in sys.argv[1:]:
        groups.append([]) if word == "--" else groups[-1].append(word)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train")
    parser.add_argument("gsm8k")
    parser.add_argument("output")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--model")
    parser.add_argument("--device")
    parser.add_argument("--precision")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--limit", type=int, help="questions of the test set")
    parser.add_argument("--max-new-tokens", type=int)
    parser.add_argument("--seeds", type=int)
    options = parser.parse_args(groups[0])
    usual = dict(model="meta-llama/Llama-3.2-3B", device="cuda", precision="bfloat16", steps=5000, limit=None,
                 max_new_tokens=300, seeds=1, rate="1e-4")
    if options.small:
        usual |= dict(device="cpu", precision="float32", steps=300, limit=100, max_new_tokens=120, seeds=3, rate="3e-3")
        if not options.model:
            parser.error("--small needs --model")
    for key, value in usual.items():
        if getattr(options, key, None) is None:
            setattr(options, key, value)
    return options, groups[1:] or [["--method", "lora", "--rank", "32", "--alpha", "64"]]


def measure(peft, options, method, seed, folder):
    """Trains and evaluates one run."""
    def run(*words, **more):
        print("$ peft " + " ".join(words), file=sys.stderr)
        return subprocess.run([peft, *words], check=True, **more)

    data = lambda name: os.path.join(options.output, name)
    adapter, answers = os.path.join(folder, "adapter"), os.path.join(folder, "answers.jsonl")
    common = ["--device", options.device, "--precision", options.precision]
    rate = [] if any(word in ("--lr", "--learning-rate") for word in method) else ["--lr", options.rate]
    run(
        "train", "--model", options.model, *common, "--data", data("train.jsonl"), "--prompt", "",
        "--target", TEMPLATE + "{response}", "--steps", str(options.steps), "--batch-size", "4", "--weight-decay", "0.1",
        "--schedule", "cosine", "--warmup", "0.1", "--clip", "1", "--seed", str(seed), *rate, *method, "--output", adapter)
    # Full fine-tuning saves a model.
    place = ["--adapter" if os.path.exists(os.path.join(adapter, "adapter_config.json")) else "--model", adapter]
    run(
        "generate", *place, *common, "--data", data("test.jsonl"), "--prompt", TEMPLATE,
        "--max-new-tokens", str(options.max_new_tokens), "--output", answers)
    evaluation = json.loads(run(
        "evaluate", *place, *common, "--data", data("test.jsonl"), "--prompt", TEMPLATE, "--target", "{response}",
        "--max-new-tokens", "1", "--json", stdout=subprocess.PIPE, text=True).stdout)
    with open(answers, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    correct = sum(
        known is not None and known == final_number(row["output"])
        for row, known in ((row, final_number(row["answer"])) for row in rows))
    with open(os.path.join(adapter, "training.json"), encoding="utf-8") as file:
        training = json.load(file)
    return {
        "seed": seed, "questions": len(rows), "correct": correct, "loss": evaluation["loss"],
        "trainable": training.get("trainable"), "seconds": training.get("seconds"),
        "tokensPerSecond": training.get("tokensPerSecond"),
    }


def main():
    options, methods = parsed()
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    peft = os.environ.get("PEFT_PROGRAM") or os.path.join(root, ".build", "release", "peft")
    os.makedirs(options.output, exist_ok=True)
    prepare(options.train, options.gsm8k, options.output, options.limit)
    results = []
    for number, method in enumerate(methods):
        runs = []
        for seed in range(options.seeds):
            folder = os.path.join(options.output, f"{number}-{seed}")
            os.makedirs(folder, exist_ok=True)
            runs.append(measure(peft, options, method, seed, folder))
        questions, correct = sum(run["questions"] for run in runs), sum(run["correct"] for run in runs)
        low, high = interval(correct, questions)
        losses = [run["loss"] for run in runs]
        results.append({
            "method": method, "model": options.model, "steps": options.steps, "runs": runs,
            "accuracy": correct / questions, "low": low, "high": high, "loss": statistics.mean(losses),
            "deviation": statistics.stdev(losses) if len(losses) > 1 else None,
        })
        with open(os.path.join(options.output, "result.json"), "w", encoding="utf-8") as file:
            json.dump(results, file, indent=2)
    print(f"{'test loss':18} {'right answers':24} trained     method")
    for result in results:
        spread = f" ± {result['deviation']:.3f}" if result["deviation"] is not None else ""
        right = f"{100 * result['accuracy']:.1f} % [{100 * result['low']:.1f}, {100 * result['high']:.1f}]"
        trained = result["runs"][0]["trainable"]
        print(f"{result['loss']:.3f}{spread:12} {right:24} {trained or 0:<11,} {' '.join(result['method'])}")


if __name__ == "__main__":
    main()
