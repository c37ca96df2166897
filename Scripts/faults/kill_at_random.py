#!/usr/bin/env python3
"""Kills train, merge, quantize and convert at random times (kill -9). The output must be complete or absent; rerunning the
command must produce it, bit-identical to an uninterrupted run, and leave nothing else behind."""
import random
import subprocess
import time

from faults import MODEL, SMALL, Faults, digest, leftovers, remove

faults = Faults(__doc__, count=20)
random.seed(faults.options.seed)
faults.need(*faults.train("adapter", "--steps", "4", "--rank", "32", "--targets", "all-linear"))

commands = {
    "train": (faults.train("out", "--steps", "30", "--checkpoint-every", "1", "--validation", "rows.jsonl",
                           "--validate-every", "5", "--rank", "64", "--targets", "all-linear"), "out"),
    "train full": (faults.train("out", "--method", "full", "--steps", "6", "--checkpoint-every", "1"), "out"),
    "merge": (["merge", "adapter", "--model", MODEL, "--output", "out"], "out"),
    "quantize": (["quantize", "--model", MODEL, "--to", "int4", "--group", "32", "--output", "out"], "out"),
    "quantize gguf": (["quantize", "--model", SMALL, "--to", "gguf-q8_0", "--output", "out.gguf"], "out.gguf"),
    "convert": (["convert", "adapter", "--output", "out"], "out"),
}
for name, (command, output) in commands.items():
    path = faults.folder / output
    before = leftovers(faults.folder)
    start = time.monotonic()
    first = faults.run(*command)
    seconds = time.monotonic() - start
    if first.returncode != 0:
        faults.skip(f"{name}: {first.stderr.strip()}")
        continue
    expected = digest(path)
    remove(path)
    finished = resumed = 0
    for round in range(faults.options.count):
        moment = random.uniform(0, seconds * 1.05)
        process = subprocess.Popen(
            faults.command(*command), cwd=faults.folder, env=faults.environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(moment)
        process.kill()
        process.wait()
        what = f"{name} killed after {moment:.2f} s"
        if path.exists():
            finished += 1
            faults.check(digest(path) == expected, f"{what}: the output is another")
            # The next run cleans up after this one.
            again = faults.run(*command)
            faults.check(again.returncode == 1 and "exists" in again.stderr, f"{what}: {again.stderr.strip()}")
            faults.check(leftovers(faults.folder) == before, f"{what}: left {leftovers(faults.folder)}")
            remove(path)
            continue
        more = ["--resume"] if command[0] == "train" else []
        resumed += bool(list(faults.folder.glob("*.checkpoint/newest")))
        again = faults.run(*command, *more)
        if not faults.check(again.returncode == 0, f"{what}, again: {again.stderr.strip()}"):
            for rest in faults.folder.glob("out*"):
                remove(rest)
            continue
        faults.check(digest(path) == expected, f"{what}: the output of the second run is another")
        faults.check(leftovers(faults.folder) == before, f"{what}: left {leftovers(faults.folder)}")
        remove(path)
    print(f"{name}: {faults.options.count} kills within {seconds:.1f} s, {finished} after the output was there"
          + (f", {resumed} with a checkpoint" if command[0] == "train" else ""), flush=True)
faults.end()
