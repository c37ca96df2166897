#!/usr/bin/env python3
"""Download OpenBLAS next to the linked libtorch on machines where its GEMM is faster than MKL's.

Usage: Scripts/setup-openblas.py

libtorch on x86-64 Linux uses MKL, which is slower on AMD processors. There, this script downloads the Python package
`scipy-openblas32` (8 MB) to the folder that .libtorch links to; nothing is installed into Python. On other machines, with
the user's own PyTorch (PEFT_LIBTORCH), and if the package is not available, it does nothing and programs use libtorch's
BLAS. PEFT_BLAS=torch selects libtorch's BLAS at run time.
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
    """The library folder of a libtorch unpacked by `make setup`, or None if there is nothing to do."""
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
            say("pip could not download the Python package scipy-openblas32; using libtorch's BLAS")
            return
        try:
            wheels.install(wheels.read(wheel, LIBRARY), os.path.join(folder, LIBRARY))
        except (zipfile.BadZipFile, OSError) as error:
            say(f"{os.path.basename(wheel)} is not usable ({error}); using libtorch's BLAS")
            return
    say(f"installed {LIBRARY} in {folder}")


if __name__ == "__main__":
    if sys.argv[1:]:
        print(__doc__.strip())
        sys.exit(0 if sys.argv[1] in ("-h", "--help") else 64)
    main()
