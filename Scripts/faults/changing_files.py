#!/usr/bin/env python3
"""Takes files away from running commands: a folder that is read-only, a data file that vanishes, a model file that is truncated
while it is mapped. Each command ends well, or with one line and exit code 1 and without a partial output; training resumes
when the file is back."""
import os
import random
import shutil
import subprocess
import time

from faults import MODEL, SMALL, TEMPLATES, Faults, digest, leftovers, one_line, remove

faults = Faults(__doc__, count=8)
random.seed(faults.options.seed)
faults.need(*faults.train("adapter", "--steps", "1"))

# A read-only folder: a read-only file system for root, whom permissions don't stop.
place = faults.folder / "place"
place.mkdir()
isMounted = False
if os.geteuid() == 0:
    isMounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=64k", "tmpfs", place], capture_output=True).returncode == 0
else:
    place.chmod(0o555)
if os.access(place, os.W_OK):
    faults.skip("a read-only folder, as mounting isn't allowed")
else:
    commands = {
        "train": faults.train("place/out", "--steps", "2"), "train --log-dir": faults.train("out", "--steps", "2", "--log-dir", "place/logs"),
        "merge": ["merge", "adapter", "--model", MODEL, "--output", "place/out"],
        "quantize": ["quantize", "--model", MODEL, "--to", "int8", "--output", "place/out"],
        "quantize gguf": ["quantize", "--model", SMALL, "--to", "gguf", "--output", "place/out.gguf"],
        "convert": ["convert", "adapter", "--output", "place/out"],
    }
    for name, command in commands.items():
        result = faults.run(*command)
        # Records are a courtesy: a run goes on without them.
        if name == "train --log-dir" and result.returncode == 0:
            faults.check("records" in result.stderr, f"{name}: lost without a word")
            remove(faults.folder / "out")
            continue
        faults.check(one_line(result), f"{name} in a read-only folder: {result.returncode} {result.stderr.strip()}")
        faults.check(not list(place.iterdir()) and not leftovers(faults.folder), f"{name}: left files")
    print(f"read-only folder: {len(commands)} commands", flush=True)
if isMounted:
    subprocess.run(["umount", place], check=True)
else:
    place.chmod(0o755)

copy, rows = faults.folder / "model", faults.folder / "changing.jsonl"
command = ["train", "--model", "model", "--data", "changing.jsonl", *TEMPLATES, "--batch-size", "4", "--steps", "40",
           "--checkpoint-every", "1", "--output", "out", "--quiet"]


def restore() -> None:
    remove(copy)
    shutil.copytree(SMALL, copy)
    shutil.copy(faults.folder / "rows.jsonl", rows)


restore()
start = time.monotonic()
faults.need(*command)
seconds = time.monotonic() - start
expected = digest(faults.folder / "out")
remove(faults.folder / "out")


def truncate() -> None:
    with (copy / "model.safetensors").open("r+b") as file:
        file.truncate(random.choice([0, 100, 4096, 20000]))


for name, change in (("the data file vanishes", rows.unlink), ("the model file is truncated", truncate),
                     ("the model file vanishes", (copy / "model.safetensors").unlink)):
    survived = failed = 0
    for _ in range(faults.options.count):
        restore()
        moment = random.uniform(0, seconds)
        process = subprocess.Popen(
            faults.command(*command), cwd=faults.folder, env=faults.environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        time.sleep(moment)
        change()
        errors = process.communicate()[1]
        what = f"{name} after {moment:.2f} s"
        if process.returncode == 0:
            survived += 1
            faults.check(digest(faults.folder / "out") == expected, f"{what}: another result")
        else:
            failed += 1
            lines = [line for line in errors.splitlines() if line.startswith("error: ")]
            faults.check(process.returncode == 1 and len(lines) == 1, f"{what}: {process.returncode} {errors.strip()}")
            faults.check(not (faults.folder / "out").exists(), f"{what}: an output")
            restore()
            again = faults.run(*command, "--resume")
            faults.check(again.returncode == 0, f"{what}, resumed: {again.stderr.strip()}")
            faults.check((faults.folder / "out").exists() and digest(faults.folder / "out") == expected,
                         f"{what}, resumed: another result")
        for rest in faults.folder.glob("out*"):
            remove(rest)
    print(f"{name}: {faults.options.count} times within {seconds:.1f} s, {survived} runs ended well, {failed} with an error",
          flush=True)
faults.end()
