#!/usr/bin/env python3
"""Coverage-guided fuzzing (libFuzzer and AddressSanitizer) of the readers of files and requests, without libtorch.

    Scripts/fuzz/fuzz.py [TARGET...] [--minutes N] [--work FOLDER] [--log FILE]

Builds the targets from the sources of the modules that they need, makes seeds from the tests' fixtures, and runs each target
for some minutes on one core. Inputs that increase coverage are kept in FOLDER/corpus, findings in FOLDER/findings. The log
has a line for each target; the exit code is 1 if there is a finding."""
import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from seeds import make_seeds

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = Path(__file__).resolve().parent
SOURCES = ROOT / "Sources"
TARGETS = re.findall(r'^    "([a-z-]+)": \{', (HERE / "Targets.swift").read_text(), re.MULTILINE)
# Longest inputs: large enough for a small valid file of the kind.
LENGTHS = {"tokenizer": 16384, "gguf": 8192, "pickle": 8192, "sentencepiece": 4096, "safetensors": 4096}


def modules(csv: Path) -> list:
    """Name, sources and further flags of each module, in the order of their dependencies."""
    def folder(name: str) -> list:
        return sorted((SOURCES / name).rglob("*.swift"))

    torch = SOURCES / "Torch"
    readers = [torch / "SafetensorsFile.swift", torch / "MappedFile.swift", torch / "TensorFile.swift", torch / "DType.swift",
               *folder("Torch/Pickle"), *folder("Torch/Numpy"), HERE / "TensorStub.swift"]
    return [
        ("PEFTSupport", folder("Support")),
        ("PEFTJinja", folder("Jinja")),
        ("PEFTTokenizers", folder("Tokenizers")),
        ("SwiftCSV", sorted((csv / "SwiftCSV").rglob("*.swift"))),
        ("RowReaders", folder("Training/Data")),
        ("Constraints", folder("LanguageModels/Generation/Constraints")),
        ("CTorch", [HERE / "CTorchStub.swift"]),
        ("TensorReaders", readers),
    ]


def build(work: Path) -> Path:
    """Compiles the modules that changed, then links the targets. Each module is optimized, with checks."""
    csv = ROOT / ".build/checkouts/SwiftCSV"
    if not csv.exists():
        csv = work / "SwiftCSV"
    if not csv.exists():
        package = (ROOT / "Package.swift").read_text()
        url, version = re.search(r'url: "([^"]*SwiftCSV)", from: "([^"]*)"', package).groups()
        subprocess.run(["git", "clone", "-q", "--depth", "1", "--branch", version, url, csv], check=True)
    built = work / "build"
    built.mkdir(parents=True, exist_ok=True)
    flags = ["-O", "-enable-testing", "-wmo", "-parse-as-library", "-swift-version", "6", "-package-name", "swift_peft",
             "-sanitize=fuzzer,address", "-g", "-DSWIFT_PACKAGE", "-suppress-warnings", "-I", built]
    objects, stale = [], False
    for name, files in modules(csv):
        result = built / f"{name}.o"
        objects.append(result)
        stale = stale or not result.exists() or any(file.stat().st_mtime > result.stat().st_mtime for file in files)
        if stale:
            print(f"compiling {name}", flush=True)
            subprocess.run(
                ["swiftc", *flags, "-module-name", name, "-emit-module", "-emit-module-path", built / f"{name}.swiftmodule",
                 "-emit-object", "-o", result, *(["-swift-version", "5"] if name == "SwiftCSV" else []), *files], check=True)
    program, source = built / "fuzz", HERE / "Targets.swift"
    if stale or not program.exists() or source.stat().st_mtime > program.stat().st_mtime:
        print("linking", flush=True)
        subprocess.run(["swiftc", *flags, "-module-name", "Fuzz", source, *objects, "-o", program], check=True)
    return program


def run(program: Path, target: str, minutes: float, work: Path) -> tuple:
    """Fuzzes one target until the time is over or something is found: a line for the log, and the finding."""
    corpus, found = work / "corpus" / target, work / "findings" / target
    for folder in (corpus, found):
        folder.mkdir(parents=True, exist_ok=True)
    make_seeds(target, corpus)
    dictionary = HERE / "dictionaries" / f"{target}.txt"
    before = set(found.iterdir())
    started = time.monotonic()
    # The timeout is wall-clock time, and a busy machine may let the process wait for a minute.
    result = subprocess.run(
        [program, corpus, f"-max_total_time={int(minutes * 60)}", f"-artifact_prefix={found}/", "-timeout=300",
         "-rss_limit_mb=3000", "-malloc_limit_mb=1000", f"-max_len={LENGTHS.get(target, 2048)}", "-print_final_stats=1",
         *([f"-dict={dictionary}"] if dictionary.exists() else [])],
        env={**os.environ, "PEFT_FUZZ_TARGET": target, "ASAN_OPTIONS": "detect_leaks=0", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    (work / f"{target}.txt").write_text(result.stdout)
    runs = re.findall(r"stat::number_of_executed_units: *(\d+)", result.stdout)
    coverage = re.findall(r"cov: (\d+) ft: (\d+)", result.stdout)
    new = sorted(set(found.iterdir()) - before)
    edges = f"{coverage[-1][0]} edges" if coverage else "no coverage"
    what = f"{time.monotonic() - started:.0f} s, {runs[0] if runs else '?'} runs, {edges}"
    if result.returncode != 0 or new:
        return f"{target}: {what}, FINDING {', '.join(file.name for file in new) or result.stdout[-300:]}", True
    return f"{target}: {what}", False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"default: all of {' '.join(TARGETS)}")
    parser.add_argument("--minutes", type=float, default=5, help="minutes for each target (default: 5)")
    parser.add_argument("--work", type=Path, default=ROOT / ".build/fuzz", help="folder (default: .build/fuzz)")
    parser.add_argument("--log", type=Path, help="file to append the lines to (default: FOLDER/log.txt)")
    options = parser.parse_args()
    unknown = set(options.targets) - set(TARGETS)
    if unknown:
        sys.exit(f"error: unknown target {', '.join(sorted(unknown))}; use {' '.join(TARGETS)}")
    work = options.work.resolve()
    program = build(work)
    failed = False
    for target in options.targets or TARGETS:
        line, found = run(program, target, options.minutes, work)
        failed = failed or found
        print(line, flush=True)
        with (options.log or work / "log.txt").open("a") as log:
            log.write(time.strftime("%Y-%m-%d %H:%M ") + line + "\n")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
