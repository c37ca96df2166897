#!/usr/bin/env python3
"""Writes outputs to a full disk: a small tmpfs where mounting is allowed, and a limit on the size of files, which fails
a write in the same way. Each command ends with one line and exit code 1, leaves nothing half written, and a training
run resumes from its last checkpoint when there is space."""
import resource
import subprocess

from faults import MODEL, SMALL, Faults, digest, leftovers, one_line, remove

faults = Faults(__doc__, count=1)
faults.need(*faults.train("adapter", "--steps", "2", "--rank", "32", "--targets", "all-linear"))
disk = faults.folder / "disk"
disk.mkdir()

commands = {
    "train": faults.train("disk/out", "--steps", "4", "--checkpoint-every", "2", "--rank", "64", "--targets", "all-linear"),
    "train full": faults.train("disk/out", "--steps", "2", "--method", "full"),
    "merge": ["merge", "adapter", "--model", MODEL, "--output", "disk/out"],
    "quantize": ["quantize", "--model", MODEL, "--to", "int8", "--output", "disk/out"],
    "quantize gguf": ["quantize", "--model", SMALL, "--to", "gguf-f16", "--output", "disk/out.gguf"],
    "convert": ["convert", "adapter", "--output", "disk/out"],
    "evaluate": ["evaluate", "--model", MODEL, "--data", "rows.jsonl", "--prompt", "{q}", "--target", "{a}",
                 "--max-new-tokens", "1", "--limit", "8", "--predictions", "disk/out.jsonl"],
}


def mounted(kilobytes: int) -> bool:
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", disk], capture_output=True)
    return done.returncode == 0


def unmount() -> None:
    subprocess.run(["umount", disk], check=True)


for kilobytes in (0, 8, 64, 1024, 6000):
    # A tmpfs of size 0 has no limit.
    if not mounted(max(4, kilobytes)):
        faults.skip("a small tmpfs, as mounting needs root")
        break
    try:
        if kilobytes == 0:
            (disk / "filler").write_bytes(bytes(4096))
        failed = 0
        for name, command in commands.items():
            before = sorted(file.name for file in disk.iterdir())
            result = faults.run(*command)
            what = f"{name} on a disk of {kilobytes} kB"
            if result.returncode == 0:
                for file in disk.glob("out*"):
                    remove(file)
                continue
            failed += 1
            faults.check(one_line(result) and "space" in result.stderr, f"{what}: {result.returncode} {result.stderr.strip()}")
            left = [file.name for file in disk.iterdir() if file.name not in before and "checkpoint" not in file.name]
            faults.check(not left, f"{what}: left {left}")
            faults.check(not any(".tmp-" in file for file in leftovers(disk)), f"{what}: left {leftovers(disk)}")
            for file in disk.glob("out*"):
                remove(file)
        print(f"disk of {kilobytes} kB: {failed} of {len(commands)} commands failed, as expected", flush=True)
    finally:
        unmount()

# The disk fills up during training, and has space again later.
if mounted(8000):
    try:
        command = faults.train("disk/out", "--steps", "8", "--checkpoint-every", "1", "--rank", "8")
        faults.need(*command)
        expected = digest(disk / "out")
        remove(disk / "out")
        for share in (0.2, 0.4, 0.6, 0.8, 0.95):
            environment = {**faults.environment, "PEFT_TEST_STOP": "3"}
            subprocess.run(faults.command(*command), cwd=faults.folder, env=environment, capture_output=True)
            filler = disk / "filler"
            # Unbuffered: closing would write what is left in a buffer once more.
            with filler.open("wb", buffering=0) as file:
                try:
                    while file.write(bytes(4096)):
                        pass
                except OSError:
                    pass
            with filler.open("r+b") as file:
                file.truncate(int(filler.stat().st_size * share))
            result = faults.run(*command, "--resume")
            what = f"a disk that is {share:.0%} full of other files"
            if result.returncode != 0:
                faults.check(one_line(result), f"{what}: {result.returncode} {result.stderr.strip()}")
                filler.unlink()
                result = faults.run(*command, "--resume")
            faults.check(result.returncode == 0, f"{what}: {result.stderr.strip()}")
            faults.check(digest(disk / "out") == expected, f"{what}: another result")
            filler.unlink(missing_ok=True)
            remove(disk / "out")
        print("disk filling up during training: 5 sizes", flush=True)
    finally:
        unmount()

for blocks in (1, 64, 1024, 4096):
    failed = 0
    for name, command in commands.items():
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (blocks * 512, blocks * 512))
        result = faults.run(*command, preexec_fn=limit)
        what = f"{name} with files of at most {blocks * 512} bytes"
        if result.returncode != 0:
            failed += 1
            faults.check(one_line(result), f"{what}: {result.returncode} {result.stderr.strip()}")
            faults.check(not any(".tmp-" in file for file in leftovers(disk)), f"{what}: left {leftovers(disk)}")
        for file in disk.glob("out*"):
            remove(file)
    print(f"files of at most {blocks * 512} bytes: {failed} of {len(commands)} commands failed, as expected", flush=True)
faults.end()
