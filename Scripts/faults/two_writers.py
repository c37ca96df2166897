#!/usr/bin/env python3
"""Starts two programs with the same output. One must produce it, as it would alone; the other must fail with an error. A
lock must be released when its process is killed."""
import random
import subprocess
import time

from faults import MODEL, SMALL, Faults, digest, leftovers, remove

faults = Faults(__doc__, count=8)
random.seed(faults.options.seed)
faults.need(*faults.train("adapter", "--steps", "2", "--rank", "16"))


def start(*command) -> subprocess.Popen:
    return subprocess.Popen(
        faults.command(*command), cwd=faults.folder, env=faults.environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


commands = {
    "train": (faults.train("out", "--steps", "20", "--checkpoint-every", "1"), "out"),
    "merge": (["merge", "adapter", "--model", MODEL, "--output", "out"], "out"),
    "quantize": (["quantize", "--model", MODEL, "--to", "int8", "--output", "out"], "out"),
    "quantize gguf": (["quantize", "--model", SMALL, "--to", "gguf", "--output", "out.gguf"], "out.gguf"),
    "convert": (["convert", "adapter", "--output", "out"], "out"),
}
for name, (command, output) in commands.items():
    path = faults.folder / output
    began = time.monotonic()
    faults.need(*command)
    seconds = time.monotonic() - began
    expected = digest(path)
    remove(path)
    for _ in range(faults.options.count):
        pause = random.uniform(0, seconds * 0.9)
        first = start(*command)
        time.sleep(pause)
        second = start(*command)
        errors = [process.communicate()[1].strip() for process in (first, second)]
        codes = sorted(process.returncode for process in (first, second))
        what = f"{name}, the second {pause:.2f} s later"
        faults.check(codes == [0, 1], f"{what}: exit codes {codes}, {errors}")
        faults.check(any("exists" in error or "another run" in error or "unfinished" in error for error in errors),
                     f"{what}: {errors}")
        faults.check(path.exists() and digest(path) == expected, f"{what}: the output is another")
        faults.check(not leftovers(faults.folder), f"{what}: left {leftovers(faults.folder)}")
        if path.exists():
            remove(path)
    print(f"{name}: {faults.options.count} pairs", flush=True)

command, output = commands["train"]
for _ in range(faults.options.count):
    first = start(*command)
    checkpoint = faults.folder / "out.checkpoint/newest"
    while not checkpoint.exists() and first.poll() is None:
        time.sleep(0.01)
    refused = faults.run(*command, "--resume")
    faults.check(refused.returncode == 1 and f"process {first.pid}" in refused.stderr, f"held: {refused.stderr.strip()}")
    first.kill()
    first.wait()
    first.stderr.close()
    again = faults.run(*command, "--resume")
    faults.check(again.returncode == 0, f"after a kill: {again.stderr.strip()}")
    faults.check(not leftovers(faults.folder), f"after a kill: left {leftovers(faults.folder)}")
    remove(faults.folder / output)
print(f"killed lock holder: {faults.options.count} times")
faults.end()
