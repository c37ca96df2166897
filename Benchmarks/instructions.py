#!/usr/bin/env python3
"""Counts the instructions of six fixed small workloads and compares them with the committed counts.

Time varies between runs and machines; the number of instructions hardly does. Valgrind's cachegrind counts them, with one
thread, OpenBLAS's and libtorch's AVX2 kernels, and a fixed seed. What the program needs to start is subtracted. A workload that
differs by more than 2 % is listed; --write records the counts of this version instead.

    make bench-check                                  compares, by .build/release/peft
    Benchmarks/instructions.py --write                records
    Benchmarks/instructions.py --only train-lora      one workload

Needs valgrind (Debian: apt-get install valgrind).
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

root = pathlib.Path(__file__).resolve().parent.parent
committed = root / "Benchmarks" / "instructions.json"
tolerance = 0.02

rows = root / "Examples" / "dialogues"
data = ["--prompt", "Key facts: {dialogue}", "--target", "{facts}", "--limit", "16", "--quiet"]
train = ["train", "--data", f"{rows}/train.jsonl", *data, "--steps", "2", "--batch-size", "8", "--seed", "1"]
generate = ["generate", "--data", f"{rows}/test.jsonl", "--prompt", "Key facts: {dialogue}", "--limit", "4",
            "--max-new-tokens", "24", "--quiet", "--output", "OUT/answers.txt"]
workloads = {
    "train-lora": [*train, "--method", "lora", "--output", "OUT/adapter"],
    "train-full": [*train, "--method", "full", "--output", "OUT/model"],
    "train-qlora": [*train, "--method", "qlora", "--output", "OUT/adapter"],
    "train-houlsby": [*train, "--method", "houlsby", "--output", "OUT/adapter"],
    "generate-greedy": generate,
    "generate-beams": [*generate, "--beams", "4"],
}


def fail(message):
    sys.exit(f"error: {message}")


def count(program, arguments, folder):
    """The number of instructions of one run."""
    environment = dict(
        os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", OPENBLAS_CORETYPE="Haswell", PEFT_BLAS="openblas",
        ATEN_CPU_CAPABILITY="avx2", SWIFT_DETERMINISTIC_HASHING="1", TERM="dumb")
    arguments = [argument.replace("OUT", folder) for argument in arguments]
    run = subprocess.run(
        ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null", program, *arguments],
        capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL)
    found = re.search(r"I\s+refs:\s+([\d,]+)", run.stderr)
    if run.returncode != 0 or not found:
        fail(f"peft {' '.join(arguments)} ended with {run.returncode}:\n{run.stderr[-2000:]}")
    return int(found.group(1).replace(",", ""))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=str(root / ".build/release/peft"), help="the program to measure")
    parser.add_argument("--only", action="append", choices=list(workloads), help="a workload; repeatable")
    parser.add_argument("--write", action="store_true", help="record the counts")
    options = parser.parse_args()
    for program in ["valgrind", "strip"]:
        if not shutil.which(program):
            fail(f"{program} is not installed (Debian: apt-get install valgrind binutils)")
    if not os.path.exists(options.program):
        fail(f"{options.program} does not exist; run make build first")

    with tempfile.TemporaryDirectory() as folder:
        # Valgrind's older versions can't read the debug information that Swift's compiler writes.
        stripped = f"{folder}/peft"
        subprocess.run(["strip", "--strip-debug", "-o", stripped, options.program], check=True)
        start = count(stripped, ["--version"], folder)
        counts = {}
        print(f"start: {start / 1e9:.2f} billion instructions, subtracted below", flush=True)
        recorded = json.loads(committed.read_text()) if committed.exists() else {}
        changed = []
        for name in options.only or workloads:
            output = tempfile.mkdtemp(dir=folder)
            counts[name] = count(stripped, workloads[name], output) - start
            line = f"{name:16} {counts[name] / 1e9:8.3f} billion"
            if not options.write:
                if name not in recorded:
                    fail(f"{committed} has no count of {name}; run with --write on the version to compare with")
                difference = counts[name] / recorded[name] - 1
                line += f"  {difference:+.2%} of {recorded[name] / 1e9:.3f}"
                if abs(difference) > tolerance:
                    line += "  CHANGED"
                    changed.append(name)
            print(line, flush=True)
    if options.write:
        committed.write_text(json.dumps({**recorded, **counts}, indent=2) + "\n")
        print(f"wrote {committed}")
    elif changed:
        print(f"{len(changed)} of {len(counts)} workloads changed by more than {tolerance:.0%}: {', '.join(changed)}")
        print("If that is meant, record it with Benchmarks/instructions.py --write and say why in the commit.")
        sys.exit(1)
    else:
        print(f"all {len(counts)} within {tolerance:.0%}")


if __name__ == "__main__":
    main()
