#!/usr/bin/env python3
"""Download DuckDB, which peft uses to read Parquet, remote files and SQL queries.

Usage: Scripts/setup-duckdb.py [--check]

  (nothing)   download the program to the per-user cache, unless one is found
  --check     only print which program is used; exit status 1 if none is found

The program comes from the Python package `duckdb-cli` (20 MB): pip downloads the wheel, and the program is unpacked into
the cache, by default ~/.cache/swift-peft (on macOS ~/Library/Caches/swift-peft). Nothing is installed into Python.

  PEFT_DUCKDB      a program to use instead; `duckdb` on the PATH comes next
  XDG_CACHE_HOME   the folder of caches
"""

import os
import shutil
import sys
import tempfile
import zipfile

import wheels
from caches import cache_folder

PACKAGE, PROGRAM = "duckdb-cli", "duckdb"


def say(text):
    print(f"duckdb: {text}", flush=True)


def target():
    """The program's path in the cache."""
    return os.path.join(cache_folder(), "duckdb", PROGRAM)


def found():
    """The program that peft runs, or None."""
    named = os.environ.get("PEFT_DUCKDB")
    if named:
        return named
    return shutil.which(PROGRAM) or (target() if os.access(target(), os.X_OK) else None)


def main(arguments):
    program = found()
    if program is not None:
        say(f"using {program}")
        return 0
    if arguments == ["--check"]:
        say("not found; run Scripts/setup-duckdb.py to download it")
        return 1
    with tempfile.TemporaryDirectory() as work:
        wheel = wheels.download(PACKAGE, work)
        if wheel is None:
            say(f"pip could not download the Python package {PACKAGE}; put {PROGRAM} on the PATH instead")
            return 1
        try:
            wheels.install(wheels.read(wheel, PROGRAM), target())
        except (zipfile.BadZipFile, OSError) as error:
            say(f"{os.path.basename(wheel)} is not usable ({error}); put {PROGRAM} on the PATH instead")
            return 1
    say(f"installed {target()}")
    return 0


if __name__ == "__main__":
    if sys.argv[1:] not in ([], ["--check"]):
        print(__doc__.strip())
        sys.exit(0 if sys.argv[1] in ("-h", "--help") else 64)
    sys.exit(main(sys.argv[1:]))
