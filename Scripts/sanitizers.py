#!/usr/bin/env python3
"""Runs the suites that need no libtorch under sanitizers: the kernels (C++) under AddressSanitizer and
UndefinedBehaviorSanitizer, the tokenizers, templates and support modules under AddressSanitizer and ThreadSanitizer.

    Scripts/sanitizers.py [kernels] [address] [thread] [--work FOLDER] [--filter EXPRESSION]

Without an argument all three run. The suites are compiled directly, into a folder of their own: a sanitized build of the whole
package takes hours on a small machine, and libtorch isn't instrumented. The exit code is 1 if a test fails or a sanitizer
reports something."""
import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KERNELS = ROOT / "Sources/CKernels"
# Name, folder, and whether it holds tests.
MODULES = [("PEFTSupport", "Sources/Support"), ("PEFTJinja", "Sources/Jinja"), ("PEFTTokenizers", "Sources/Tokenizers"),
           ("TestSupport", "Tests/TestSupport"), ("SupportTests", "Tests/SupportTests"), ("JinjaTests", "Tests/JinjaTests"),
           ("TokenizersTests", "Tests/TokenizersTests")]
RUNNER = """
import Testing

@main struct Runner {
    static func main() async { await Testing.__swiftPMEntryPoint() as Never }
}
"""
# Where the tests' fixtures are: what SwiftPM generates for a target with resources.
BUNDLE = """
import Foundation

extension Foundation.Bundle {
    static let module = Bundle(path: "%s")!
}
"""
ENVIRONMENT = {
    # Swift's standard library and Foundation keep some memory for the lifetime of the process.
    "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=1", "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    "TSAN_OPTIONS": f"halt_on_error=0:exitcode=66:suppressions={ROOT}/Scripts/tsan-suppressions.txt",
}


def swift(work: Path, sanitizers: str, name: str, files: list, *more) -> Path:
    """Compiles a module; its object file."""
    result = work / f"{name}.o"
    subprocess.run(
        ["swiftc", "-Onone", "-gline-tables-only", "-wmo", "-enable-testing", "-parse-as-library", "-swift-version", "6", "-package-name",
         "swift_peft", "-DSWIFT_PACKAGE", f"-sanitize={sanitizers}", "-suppress-warnings", "-I", work, "-module-name", name,
         "-emit-module", "-emit-module-path", work / f"{name}.swiftmodule", "-emit-object", "-o", result, *more, *files],
        check=True)
    return result


def test(program: Path, pattern: str) -> bool:
    """Whether all tests pass, in the checkout, where some of them look for files."""
    command = [program, "--testing-library", "swift-testing", *(["--filter", pattern] if pattern else [])]
    result = subprocess.run(command, cwd=ROOT, env={**os.environ, **ENVIRONMENT}, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, errors="replace")
    (program.parent / "log.txt").write_text(result.stdout)
    marks = ("runtime error:", "ERROR: AddressSanitizer", "WARNING: ThreadSanitizer", "✘", "Test run with")
    for line in result.stdout.splitlines():
        if any(mark in line for mark in marks):
            print("  " + line[:300])
    print(f"  exit code {result.returncode}; log: {program.parent / 'log.txt'}", flush=True)
    return result.returncode == 0


def kernels(work: Path, pattern: str) -> bool:
    flags = ["-std=c++20", "-O1", "-g", "-fPIC", "-fno-omit-frame-pointer", "-fno-math-errno", "-fno-trapping-math",
             "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-I", KERNELS / "include"]

    newest = max(file.stat().st_mtime for file in KERNELS.rglob("*") if file.is_file())

    def compile(file: Path) -> Path:
        result = work / f"{file.stem}.o"
        if result.exists() and result.stat().st_mtime > newest:
            return result
        subprocess.run(["clang++", *flags, "-c", file, "-o", result], check=True)
        return result

    with ThreadPoolExecutor(max_workers=int(os.environ.get("JOBS", "1"))) as pool:
        objects = list(pool.map(compile, sorted(KERNELS.glob("*.cpp"))))
    clang = ["-Xcc", f"-fmodule-map-file={KERNELS}/include/module.modulemap", "-Xcc", "-I", "-Xcc", KERNELS / "include"]
    objects.append(swift(work, "address", "CKernelsTests", sorted((ROOT / "Tests/CKernelsTests").glob("*.swift")), *clang))
    # The runtime of AddressSanitizer contains the other.
    return link(work, "address", objects, pattern, "-lstdc++", "-ldl")


def suites(work: Path, sanitizer: str, pattern: str) -> bool:
    objects = []
    for name, folder in MODULES:
        files = [file for file in sorted((ROOT / folder).rglob("*.swift")) if "/Fixtures/" not in str(file)]
        if (ROOT / folder / "Fixtures").exists():
            bundle = work / f"{name}Bundle.swift"
            bundle.write_text(BUNDLE % (ROOT / folder))
            files.append(bundle)
        print(f"  compiling {name}", flush=True)
        objects.append(swift(work, sanitizer, name, files))
    return link(work, sanitizer, objects, pattern)


def link(work: Path, sanitizers: str, objects: list, pattern: str, *libraries: str) -> bool:
    runner, program = work / "Runner.swift", work / "tests"
    runner.write_text(RUNNER)
    # The linker warns of each symbol of the sanitizer's runtime that it can't export.
    linked = subprocess.run(["swiftc", "-parse-as-library", f"-sanitize={sanitizers}", "-suppress-warnings", "-module-name",
                             "Runner", runner, *objects, *libraries, "-o", program], capture_output=True, text=True)
    if linked.returncode != 0:
        sys.exit(linked.stderr)
    return test(program, pattern)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="kernels, address or thread (default: all)")
    parser.add_argument("--work", type=Path, default=ROOT / ".build/sanitizers", help="folder (default: .build/sanitizers)")
    parser.add_argument("--filter", default="", help="run only the tests whose names match")
    options = parser.parse_args()
    parts = {"kernels": lambda work: kernels(work, options.filter),
             "address": lambda work: suites(work, "address", options.filter),
             "thread": lambda work: suites(work, "thread", options.filter)}
    unknown = set(options.parts) - set(parts)
    if unknown:
        sys.exit(f"error: unknown part {', '.join(sorted(unknown))}; use {', '.join(parts)}")
    passed = True
    for name in options.parts or parts:
        work = options.work.resolve() / name
        work.mkdir(parents=True, exist_ok=True)
        print(f"{name}:", flush=True)
        passed = parts[name](work) and passed
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
