#!/usr/bin/env python3
"""Kills train, merge, quantize, convert and pull at random times (kill -9): half of the moments are spread over the whole
command, half over its last third, where results are written. At the moment of the kill the output must be complete or
absent, and the newest checkpoint complete. Rerunning the command must produce the output, bit-identical to an uninterrupted
run, and leave nothing else behind."""
import hashlib
import json
import random
import struct
import subprocess
import sys
import time
from pathlib import Path

from faults import MODEL, ROOT, SMALL, TEMPLATES, Faults, digest, leftovers, remove

faults = Faults(__doc__, count=20)
random.seed(faults.options.seed)
small = ["train", "--model", SMALL, "--data", "rows.jsonl", *TEMPLATES, "--batch-size", "4", "--output", "out", "--quiet",
         "--checkpoint-every", "1"]
faults.need(*faults.train("adapter", "--steps", "2", "--rank", "32", "--targets", "all-linear"))


def is_whole(file: Path) -> bool:
    """Whether a file under its final name is complete: its format's length, or valid JSON."""
    data = file.read_bytes()
    try:
        if file.suffix == ".json":
            json.loads(data)
        elif file.suffix == ".safetensors":
            size = struct.unpack("<Q", data[:8])[0]
            header = json.loads(data[8:8 + size])
            ends = [value["data_offsets"][1] for name, value in header.items() if name != "__metadata__"]
            return len(data) == 8 + size + max(ends, default=0)
        elif file.name == "metrics.csv":
            # A file that grows: a line may lack its end, all others have all cells.
            return all(line.count(b",") == 8 for line in data.split(b"\n")[:-1])
    except (ValueError, KeyError, struct.error):
        return False
    return True


def inspect(folder: Path, known: set, what: str) -> None:
    """Checks that each file which a killed command left under a final name is complete, and that names that are no results
    say so."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if parts[0] in known:
            continue
        # A temporary file, or something within a temporary folder.
        if any(".tmp-" in part or ".old-" in part for part in parts):
            continue
        if path.is_file() and path.name != "lock":
            faults.check(is_whole(path), f"{what}: {path.relative_to(folder)} is half written")


def result(path: Path) -> str:
    """A digest of the weights, and of the losses of a training run."""
    record = path / "training.json"
    losses = json.loads(record.read_text())["history"] if record.exists() else None
    return digest(path) + json.dumps(losses)


def kill(command: list, moment: float, **environment) -> None:
    process = subprocess.Popen(
        faults.command(*command), cwd=faults.folder, env={**faults.environment, **environment}, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(moment)
    process.kill()
    process.wait()


def moments(seconds: float):
    """Half of them over the whole command, half over its last third and a little more."""
    for number in range(faults.options.count):
        yield random.uniform(0, seconds * 1.05) if number % 2 == 0 else random.uniform(seconds * 0.67, seconds * 1.05)


def typical(measure) -> float:
    """The median time of three runs."""
    return sorted(measure() for _ in range(3))[1]


commands = {
    "train": (small + ["--steps", "20", "--validation", "rows.jsonl", "--validate-every", "3"], "out"),
    "train tiny-t5": (faults.train("out", "--steps", "4", "--checkpoint-every", "1", "--rank", "32"), "out"),
    "train full": (small + ["--method", "full", "--steps", "10"], "out"),
    "merge": (["merge", "adapter", "--model", MODEL, "--output", "out"], "out"),
    "quantize": (["quantize", "--model", MODEL, "--to", "int4", "--group", "32", "--output", "out"], "out"),
    "quantize gguf": (["quantize", "--model", SMALL, "--to", "gguf-q8_0", "--output", "out.gguf"], "out.gguf"),
    "convert": (["convert", "adapter", "--output", "out"], "out"),
}
for name, (command, output) in commands.items():
    path = faults.folder / output
    before = leftovers(faults.folder)
    known = {entry.name for entry in faults.folder.iterdir()}
    times, expected = [], None
    for _ in range(3):
        start = time.monotonic()
        first = faults.run(*command)
        times.append(time.monotonic() - start)
        if first.returncode != 0:
            break
        expected = result(path)
        remove(path)
    if first.returncode != 0:
        faults.skip(f"{name}: {first.stderr.strip()}")
        continue
    seconds = sorted(times)[1]
    finished = resumed = partial = 0
    for moment in moments(seconds):
        kill(command, moment)
        what = f"{name} killed after {moment:.2f} s"
        inspect(faults.folder, known, what)
        if path.exists():
            finished += 1
            faults.check(result(path) == expected, f"{what}: the output is another")
            # The next run cleans up after this one.
            again = faults.run(*command)
            faults.check(again.returncode == 1 and "exists" in again.stderr, f"{what}: {again.stderr.strip()}")
            faults.check(leftovers(faults.folder) == before, f"{what}: left {leftovers(faults.folder)}")
            remove(path)
            continue
        partial += bool(leftovers(faults.folder) != before)
        more = ["--resume"] if command[0] == "train" else []
        resumed += bool(list(faults.folder.glob("*.checkpoint/newest")))
        again = faults.run(*command, *more)
        if not faults.check(again.returncode == 0, f"{what}, again: {again.stderr.strip()}"):
            for rest in faults.folder.glob("out*"):
                remove(rest)
            continue
        faults.check(result(path) == expected, f"{what}: the output of the second run is another")
        faults.check(leftovers(faults.folder) == before, f"{what}: left {leftovers(faults.folder)}")
        remove(path)
    print(f"{name}: {faults.options.count} kills within {seconds:.1f} s, {finished} after the output was there, {partial} "
          "with temporary files or a checkpoint"
          + (f", {resumed} with a checkpoint" if command[0] == "train" else ""), flush=True)

# Downloads: from the tests' hub, into a cache that is empty at first.
site = faults.folder / "site"
repository = site / "repos/team/model"
repository.mkdir(parents=True)
for file in SMALL.iterdir():
    (repository / file.name).write_bytes(file.read_bytes())
(repository / "model.safetensors").write_bytes((MODEL / "model.safetensors").read_bytes())
sums = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in repository.iterdir()}
hub = subprocess.Popen([sys.executable, ROOT / "Tests/HubTests/Server/hub_server.py", site], stdin=subprocess.PIPE,
                       stdout=subprocess.PIPE, text=True)
try:
    port = json.loads(hub.stdout.readline())["hub"]
    cache = faults.folder / "cache"
    environment = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HUB_CACHE": str(cache)}
    pull = ["pull", "team/model", "--quiet"]

    def fetch() -> subprocess.CompletedProcess:
        return faults.run(*pull, env={**faults.environment, **environment})

    def check_cache(what: str, isComplete: bool) -> None:
        """Every name in a snapshot leads to a file with the right checksum."""
        seen = set()
        for file in cache.glob("models--team--model/snapshots/*/*"):
            good = file.exists() and hashlib.sha256(file.read_bytes()).hexdigest() == sums.get(file.name)
            faults.check(good, f"{what}: {file.name} in the snapshot is not the hub's")
            seen.add(file.name)
        if isComplete:
            faults.check(seen == set(sums), f"{what}: the snapshot holds {sorted(seen)}")
            left = [file.name for file in cache.rglob("*.incomplete")]
            faults.check(not left, f"{what}: left {left}")

    def timed() -> float:
        remove(cache)
        start = time.monotonic()
        done = fetch()
        if done.returncode != 0:
            sys.exit(f"pull failed: {done.stderr.strip()}")
        return time.monotonic() - start

    seconds = typical(timed)
    begun = finished = 0
    for moment in moments(seconds):
        remove(cache)
        kill(pull, moment, **environment)
        what = f"pull killed after {moment:.2f} s"
        check_cache(what, False)
        begun += bool(list(cache.rglob("*.incomplete")))
        finished += bool(list(cache.glob("models--team--model/refs/*")))
        again = fetch()
        faults.check(again.returncode == 0, f"{what}, again: {again.stderr.strip()}")
        check_cache(f"{what}, again", True)
    print(f"pull: {faults.options.count} kills within {seconds:.1f} s, {begun} within a file, {finished} after the end",
          flush=True)
finally:
    hub.stdin.close()
    hub.wait(10)
faults.end()
