"""Scaling of the time and memory of a training step with rank, batch size, sequence length and layers.

    PEFT_BENCHMARKS=1 swift build -c release --product training-benchmark
    python Benchmarks/scaling.py [--threads 1] [--write RESULTS.json]

A Llama with random weights (hidden size 512, 8 layers, vocabulary 8,192) trains a LoRA on all linear layers; one setting
varies at a time, the others stay at rank 16, batch size 4, 256 tokens (a quarter of them targets) and 8 layers. Each point is a
separate process: the median step after two warm-up steps, and the peak resident memory minus that of a minimal process. The
exponent between two points is log(time ratio) / log(setting's ratio): 1 is proportional, 0 constant. Prints a Markdown table.
Requires only Python.
"""
import argparse
import json
import math
import os
import pathlib
import random
import statistics
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = ROOT / ".build/release/training-benchmark"
USUAL = dict(rank=16, batch=4, length=256, layers=8)
VALUES = dict(rank=[4, 16, 64, 256], batch=[1, 2, 4, 8, 16], length=[64, 128, 256, 512, 1024, 2048], layers=[2, 4, 8, 16])


def measured(threads, steps, rank, batch, length, layers):
    """Seconds per step and peak memory in bytes."""
    config = dict(
        model_type="llama", architectures=["LlamaForCausalLM"], vocab_size=8192, hidden_size=512, intermediate_size=1408,
        num_hidden_layers=layers, num_attention_heads=8, num_key_value_heads=8, tie_word_embeddings=False, eos_token_id=1,
        max_position_embeddings=4096)
    choose = random.Random(0)
    target = length // 4
    rows = [dict(input=[choose.randrange(2, 8192) for _ in range(length - target)],
                 target=[choose.randrange(2, 8192) for _ in range(target)]) for _ in range(batch * steps)]
    run = dict(steps=steps, batch=batch, threads=threads, random=True, method="lora",
               options=dict(rank=str(rank), targets="all-linear"))
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "model").mkdir()
        for file, value in (("model/config.json", config), ("rows.json", rows), ("run.json", run)):
            (folder / file).write_text(json.dumps(value))
        output = subprocess.run([PROGRAM, folder], check=True, capture_output=True, text=True,
                                env=dict(os.environ, OMP_NUM_THREADS=str(threads)))
    result = json.loads(output.stdout)
    return statistics.median(result["seconds"][2:]), result["peakBytes"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--write", metavar="FILE")
    arguments = parser.parse_args()
    if arguments.steps < 3:
        parser.error("--steps must be at least 3, as the first two are warm-up")
    _, floor = measured(arguments.threads, 3, rank=1, batch=1, length=8, layers=8)
    results = {}
    print("| | | step | exponent | memory beyond the model | exponent |\n|---|---|---|---|---|---|")
    for field, values in VALUES.items():
        before = None
        for value in values:
            seconds, peak = measured(arguments.threads, arguments.steps, **dict(USUAL, **{field: value}))
            # Without the weights of the additional layers, which are not the step's memory.
            base = floor if field != "layers" else measured(
                arguments.threads, 3, rank=1, batch=1, length=8, layers=value)[1]
            point = (value, seconds, max(1, peak - base))
            results.setdefault(field, []).append(point)
            slopes = ["", ""]
            if before:
                ratio = math.log(value / before[0])
                slopes = [f"{math.log(point[k] / before[k]) / ratio:.2f}" for k in (1, 2)]
            print(f"| {field} | {value:,} | {seconds * 1e3:,.0f} ms | {slopes[0]} | {point[2] / 1e6:,.0f} MB | {slopes[1]} |",
                  flush=True)
            before = point
    if arguments.write:
        pathlib.Path(arguments.write).write_text(json.dumps(dict(threads=arguments.threads, results=results)))


if __name__ == "__main__":
    main()
