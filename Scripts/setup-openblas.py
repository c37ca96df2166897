#!/usr/bin/env python3
"""Put OpenBLAS beside the linked libtorch, where it multiplies faster than libtorch's own BLAS.

Usage: Scripts/setup-openblas.py

libtorch on x86-64 Linux multiplies by MKL, which on AMD's processors falls behind. There, this script gets the Python
package `scipy-openblas32` (8 MB) into the folder that .libtorch leads to; nothing is installed into Python. Elsewhere, in
a PyTorch of the user's own (PEFT_LIBTORCH), and where the package can't be had, nothing is done: programs then multiply by
libtorch's. PEFT_BLAS=torch makes a program do so too.
"""

import base64
import csv
import hashlib
import io
import os
import platform
import subprocess
import sys
import tempfile
import zipfile

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


def library_of(wheel):
    """The bytes of the library in a wheel, compared with its checksum."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/" + LIBRARY))
        record = next(name for name in archive.namelist() if name.endswith(".dist-info/RECORD"))
        sums = {line[0]: line[1] for line in csv.reader(io.StringIO(archive.read(record).decode("utf-8")))}
        data = archive.read(name)
    digest = "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
    if sums.get(name) != digest:
        raise zipfile.BadZipFile(f"{name} differs from its checksum")
    return data


def install(data, folder):
    """The file appears whole or not at all."""
    descriptor, temporary = tempfile.mkstemp(dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o755)
        os.replace(temporary, os.path.join(folder, LIBRARY))
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def main():
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "amd64") or not is_amd():
        return
    folder = target_folder()
    if folder is None:
        return
    with tempfile.TemporaryDirectory() as work:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-input", "--disable-pip-version-check",
                   "--quiet", "--only-binary", ":all:", "--dest", work, "scipy-openblas32"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = [name for name in os.listdir(work) if name.endswith(".whl")]
        if result.returncode != 0 or not wheels:
            say("the Python package scipy-openblas32 can't be had; products will be libtorch's")
            return
        try:
            install(library_of(os.path.join(work, wheels[0])), folder)
        except (zipfile.BadZipFile, StopIteration, OSError) as error:
            say(f"{wheels[0]} could not be used ({error or 'it holds no library'}); products will be libtorch's")
            return
    say(f"put {LIBRARY} into {folder}")


if __name__ == "__main__":
    if sys.argv[1:]:
        print(__doc__.strip())
        sys.exit(0 if sys.argv[1] in ("-h", "--help") else 64)
    main()
