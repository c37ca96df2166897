#!/usr/bin/env python3
"""Get DuckDB's program, through which peft reads Parquet, remote files and SQL queries.

Usage: Scripts/setup-duckdb.py [--check]

  (nothing)   put the program into the per-user cache, unless there is one already
  --check     only say which program is used; exit status 1 if none is

The program comes from the Python package `duckdb-cli` (20 MB): pip downloads the wheel, and its one file is unpacked into
the cache, by default ~/.cache/swift-peft (on macOS ~/Library/Caches/swift-peft). Nothing is installed into Python.

  PEFT_DUCKDB      a program to use instead; so is `duckdb` on the PATH
  XDG_CACHE_HOME   where caches are kept
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
    """Where the program lies in the cache."""
    return os.path.join(cache_folder(), "duckdb", PROGRAM)


def found():
    """The program that peft would run, or None."""
    named = os.environ.get("PEFT_DUCKDB")
    if named:
        return named
    return shutil.which(PROGRAM) or (target() if os.access(target(), os.X_OK) else None)


def main(arguments):
    program = found()
    if program is not None:
        say(f"uses {program}")
        return 0
    if arguments == ["--check"]:
        say("there is none; Scripts/setup-duckdb.py gets it")
        return 1
    with tempfile.TemporaryDirectory() as work:
        wheel = wheels.download(PACKAGE, work)
        if wheel is None:
            say(f"pip can't download the Python package {PACKAGE}; put a program named {PROGRAM} on the PATH")
            return 1
        try:
            wheels.install(wheels.read(wheel, PROGRAM), target())
        except (zipfile.BadZipFile, OSError) as error:
            say(f"{os.path.basename(wheel)} could not be used ({error}); put a program named {PROGRAM} on the PATH")
            return 1
    say(f"put {target()}")
    return 0


if __name__ == "__main__":
    if sys.argv[1:] not in ([], ["--check"]):
        print(__doc__.strip())
        sys.exit(0 if sys.argv[1] in ("-h", "--help") else 64)
    sys.exit(main(sys.argv[1:]))
