"""Shared by the fault scripts: the program, a small model and data in a temporary folder, and a tally of checks."""
import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
MODEL = ROOT / "Models/tiny-t5"
SMALL = ROOT / "Tests/TrainingTests/Fixtures/chat/model"
TEMPLATES = ["--prompt", "{q}", "--target", "{a}"]


class Faults:
    """A run of one script: `check` counts results, `end` prints them and exits with 1 if any check failed."""

    def __init__(self, description: str, count: int):
        parser = argparse.ArgumentParser(description=description)
        parser.add_argument("--count", type=int, default=count, help=f"rounds of each kind (default: {count})")
        parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
        parser.add_argument(
            "program", nargs="?", default=os.environ.get("PEFT", str(ROOT / ".build/release/peft")),
            help="the program (default: $PEFT, else .build/release/peft)")
        self.options = parser.parse_args()
        self.program = os.path.abspath(self.options.program)
        if not os.access(self.program, os.X_OK):
            sys.exit(f"error: {self.program} doesn't exist; build it, or pass another program")
        self.folder = Path(tempfile.mkdtemp(prefix="peft-faults-"))
        rows = [{"q": f"Tom {i} went to town {i * 7}", "a": f"ran away {i}"} for i in range(64)]
        (self.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.passed = 0
        self.failed = 0
        self.skipped = 0
        # One thread is enough for these models and avoids contention between programs.
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TMPDIR": str(self.folder)}

    def command(self, *arguments) -> list:
        return [self.program, *map(str, arguments)]

    def run(self, *arguments, **options) -> subprocess.CompletedProcess:
        options = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL, "env": self.environment, **options}
        return subprocess.run(self.command(*arguments), cwd=self.folder, timeout=600, **options)

    def need(self, *arguments) -> None:
        """Runs a command that the checks depend on."""
        result = self.run(*arguments)
        if result.returncode != 0:
            sys.exit(f"peft {' '.join(map(str, arguments))} failed: {result.stderr.strip()}")

    def train(self, output: str, *more, model=MODEL) -> list:
        return ["train", "--model", model, "--data", "rows.jsonl", *TEMPLATES, "--batch-size", "4",
                "--output", output, "--quiet", *more]

    def check(self, holds: bool, what: str) -> bool:
        if holds:
            self.passed += 1
        else:
            self.failed += 1
            print(f"FAULT  {what}", flush=True)
        return holds

    def skip(self, what: str) -> None:
        self.skipped += 1
        print(f"SKIPPED  {what}", flush=True)

    def end(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        print(f"{self.passed} checks passed, {self.failed} failed, {self.skipped} kinds skipped")
        sys.exit(1 if self.failed else 0)


def digest(path: Path) -> str:
    """Checksum of a file, or of all weights in a folder: other files there contain timings."""
    files = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    result = hashlib.sha256()
    for file in files:
        result.update(file.name.encode() if path.is_dir() else b"")
        result.update(file.read_bytes())
    return result.hexdigest()


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def leftovers(folder: Path) -> list:
    """Temporary files that a finished command must not leave behind."""
    marks = (".tmp-", ".old-", ".checkpoint", "lock")
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*")
                  if any(mark in file.name for mark in marks))


def one_line(result: subprocess.CompletedProcess) -> bool:
    """Whether a command failed with a one-line error and not by a signal."""
    return result.returncode == 1 and sum(line.startswith("error: ") for line in result.stderr.splitlines()) == 1
