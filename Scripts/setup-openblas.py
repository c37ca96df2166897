#!/usr/bin/env python3
"""Put OpenBLAS beside the linked libtorch, where it multiplies faster than libtorch's own BLAS.

Usage: Scripts/setup-openblas.py

libtorch on x86-64 Linux multiplies by MKL, which on AMD's processors falls behind. There, this script gets the Python
package `scipy-openblas32` (8 MB) into the folder that .libtorch leads to; nothing is installed into Python. Elsewhere, in
a PyTorch of the user's own (PEFT_LIBTORCH), and where the package can't be had, nothing is done: programs then multiply by
libtorch's. PEFT_BLAS=torch makes a program do so too.
"""

import os
import platform
import sys
import tempfile
import zipfile

import wheels

CHECKOUT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LIBRARY = "libscipy_openblas.so"


def say(text):
    print(f"openblas: {text}", flush=True)


def is_amd():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return any(vendor in file.read(4096) for vendor in ("AuthenticAMD", "HygonGenuine"))
    except OSError:
        return False


def target_folder():
    """The library folder of a libtorch that `make setup` unpacked, or None where there is nothing to do."""
    folder = os.path.realpath(os.path.join(CHECKOUT, ".libtorch", "lib"))
    is_own = os.path.isfile(os.path.join(folder, "..", "..", "complete.json"))
    return folder if is_own and not os.path.exists(os.path.join(folder, LIBRARY)) else None


def main():
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "amd64") or not is_amd():
        return
    folder = target_folder()
    if folder is None:
        return
    with tempfile.TemporaryDirectory() as work:
        wheel = wheels.download("scipy-openblas32", work)
        if wheel is None:
            say("the Python package scipy-openblas32 can't be had; products will be libtorch's")
            return
        try:
            wheels.install(wheels.read(wheel, LIBRARY), os.path.join(folder, LIBRARY))
        except (zipfile.BadZipFile, OSError) as error:
            say(f"{os.path.basename(wheel)} could not be used ({error}); products will be libtorch's")
            return
    say(f"put {LIBRARY} into {folder}")


if __name__ == "__main__":
    if sys.argv[1:]:
        print(__doc__.strip())
        sys.exit(0 if sys.argv[1] in ("-h", "--help") else 64)
    main()
