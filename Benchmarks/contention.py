#!/usr/bin/env python3
"""Training speed next to other busy processes, relative to the share that a fair scheduler would give.

    python3 Benchmarks/contention.py [--program .build/release/peft] [--rounds 3] [--busy 0 1 2]

Trains LoRA on Models/tiny-t5 and the demo's dialogues for a few steps, alone and next to busy loops, once with
the default settings and once with libgomp's own spinning (GOMP_SPINCOUNT=300000). Rounds are interleaved, so that a change in the
machine's speed affects all settings equally. With n cores and b busy loops, the fair share is n / (n + b) of the speed alone.
Requires an otherwise idle machine.
"""
import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SETTINGS = {"default": {}, "libgomp": {"GOMP_SPINCOUNT": "300000"}}


def tokens_per_second(program, steps, settings, more):
    environment = {name: value for name, value in os.environ.items()
                   if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")}
    environment.update(settings)
    with tempfile.TemporaryDirectory() as folder:
        command = [program, "train", "--model", "Models/tiny-t5", "--data", "Examples/dialogues/train.jsonl",
                   "--prompt", "Summarize: {dialogue}", "--target", "{summary}", "--steps", str(steps),
                   "--output", os.path.join(folder, "adapter"), *more]
        result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    found = re.search(r"steps in .*?, ([\d,]+) tokens/s", result.stdout + result.stderr)
    if result.returncode != 0 or not found:
        sys.exit(f"{' '.join(command)} failed:\n{result.stdout}{result.stderr}")
    return float(found.group(1).replace(",", ""))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=os.path.join(ROOT, ".build/release/peft"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 2], help="numbers of busy loops")
    parser.add_argument("--set", action="append", default=[], metavar="NAME:VARIABLE=VALUE[,...]",
                        help="another environment setting to compare")
    arguments, more = parser.parse_known_args()
    for setting in arguments.set:
        name, _, variables = setting.partition(":")
        SETTINGS[name] = dict(pair.split("=", 1) for pair in variables.split(","))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    speeds = {}
    for round_ in range(arguments.rounds):
        for busy in arguments.busy:
            loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
            try:
                for name, settings in SETTINGS.items():
                    speed = tokens_per_second(arguments.program, arguments.steps, settings, more)
                    speeds.setdefault((name, busy), []).append(speed)
                    print(f"round {round_ + 1}  {busy} busy  {name:12} {speed:8.0f} tokens/s", flush=True)
            finally:
                for loop in loops:
                    loop.kill()
                    loop.wait()
    print(f"\n{cores} cores; median (lowest to highest) of {arguments.rounds} rounds")
    for name in SETTINGS:
        alone = statistics.median(speeds[name, 0]) if 0 in arguments.busy else None
        for busy in arguments.busy:
            values = speeds[name, busy]
            line = f"{name:12} {busy} busy  {statistics.median(values):8.0f} ({min(values):.0f} to {max(values):.0f}) tokens/s"
            if alone:
                line += f"  {statistics.median(values) / (alone * cores / (cores + busy)):4.0%} of the fair share"
            print(line)


if __name__ == "__main__":
    main()
