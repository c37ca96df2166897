#!/usr/bin/env python3
"""Download libtorch and link it into this checkout, where `swift build` and `swift test` look for it.

Usage: Scripts/setup-libtorch.py [--check | --verify]

  (nothing)   make sure that .libtorch links to a complete libtorch; quick if it already does
  --check     only print which libtorch is linked; exit status 1 if none is
  --verify    compare every file in the cache with its checksum, and repair damaged ones

libtorch comes from the Python package `torch`: pip downloads the wheel, and the parts that a C++ program
needs (headers, CPU libraries) are unpacked into a per-user cache that all checkouts share. Nothing is
installed into Python.

  PEFT_LIBTORCH       an existing PyTorch to link instead (a torch or libtorch folder, or a virtual
                      environment that contains torch). It stays linked until .libtorch is removed.
  PEFT_TORCH_VERSION  the version of the package `torch` to download, such as 2.15.0
  XDG_CACHE_HOME      the folder of caches, by default ~/.cache (on macOS ~/Library/Caches)
"""

import errno
import json
import os
import shutil
import sys

from caches import cache_folder

CHECKOUT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LINK = os.path.join(CHECKOUT, ".libtorch")

# A CPU build is a third of the size, but few package indexes offer it. The other version is on all of them.
CPU_BUILD, FULL_BUILD = "2.13.0+cpu", "2.15.0"
# Free space in MB for a download (pip copies the finished wheel once) and for unpacking it.
ROOM = {CPU_BUILD: 750, FULL_BUILD: 1200}

# torch/lib holds more than a C++ program on a CPU needs: Python bindings, CUDA, helpers of tests.
UNNEEDED = (
    "python", "cuda", "nvrtc", "nvshmem", "shm", "global_deps", "_test", "aoti_custom_ops",
    "backend_with_compiler", "libtorch.so",
)
# libtorch_cpu of a CUDA build is linked to two small CUDA libraries, and to no other.
CUDA_EXTRAS = ("cudart", "cupti")
CUDA_PACKAGES = ("nvidia-cuda-runtime", "nvidia-cuda-cupti")
CUDA_LIBRARIES = ("libcudart.so.", "libcupti.so.")

OTHER_PLACE = "choose another folder with XDG_CACHE_HOME"
OWN_TORCH = "or set PEFT_LIBTORCH to an installed PyTorch"


class Failure(Exception):
    """A setup error, in one line."""


class Damaged(Failure):
    """A damaged wheel, which is removed."""


def say(text):
    print(f"libtorch: {text}", flush=True)


def machine():
    """linux-x86_64, linux-aarch64 or macos-arm64."""
    uname = os.uname()
    arch = {"amd64": "x86_64", "arm64": "aarch64"}.get(uname.machine.lower(), uname.machine)
    if uname.sysname == "Darwin" and arch == "aarch64":
        return "macos-arm64"
    if uname.sysname == "Linux" and arch in ("x86_64", "aarch64"):
        return f"linux-{arch}"
    raise Failure(
        f"no prebuilt libtorch for {uname.sysname} on {uname.machine} "
        "(only Linux x86-64, Linux arm64, macOS arm64): build PyTorch and set PEFT_LIBTORCH to it"
    )


def wanted_versions():
    """Versions of the package torch, preferred first."""
    chosen = os.environ.get("PEFT_TORCH_VERSION")
    if chosen:
        return [chosen]
    return [CPU_BUILD, FULL_BUILD] if machine() == "linux-x86_64" else [FULL_BUILD]


def folder_for(version):
    return os.path.join(cache_folder(), f"torch-{version.replace('+', '-')}-{machine()}")


# Existing installations


def has_libtorch(folder):
    """Whether `folder` holds headers and libraries of libtorch."""
    return os.path.isfile(os.path.join(folder, "include/ATen/ATen.h")) and any(
        os.path.isfile(os.path.join(folder, f"lib/libtorch_cpu.{end}")) for end in ("so", "dylib")
    )


def header_version(folder):
    """The version that the headers state, or '(unknown version)'."""
    for name in ("torch/headeronly/version.h", "torch/csrc/api/include/torch/version.h"):
        try:
            with open(os.path.join(folder, "include", name), encoding="utf-8") as header:
                text = header.read()
        except OSError:
            continue
        after = text.partition("#define TORCH_VERSION ")[2]
        if after:
            return after.split('"')[1]
    return "(unknown version)"


def read_marker(folder):
    """The marker written last into an unpacked folder, or None if the folder is incomplete."""
    try:
        with open(os.path.join(folder, "complete.json"), encoding="utf-8") as file:
            marker = json.load(file)
        return marker if isinstance(marker["libraries"], dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def stamps(folder, names):
    """Size and modification time of each library: a cheap check that detects almost any damage."""
    found = {}
    for name in names:
        stat = os.stat(os.path.join(folder, name))
        found[name] = [stat.st_size, stat.st_mtime_ns]
    return found


def is_complete(folder):
    marker = read_marker(folder)
    if marker is None or not has_libtorch(os.path.join(folder, "torch")):
        return False
    try:
        return stamps(folder, marker["libraries"]) == marker["libraries"]
    except OSError:
        return False


def find_damage(folder):
    """The first file that differs from its checksum, or None."""
    import csv

    try:
        with open(os.path.join(folder, "RECORD"), newline="", encoding="utf-8") as file:
            for name, checksum, size in csv.reader(file):
                try:
                    if file_checksum(os.path.join(folder, name)) != (checksum, int(size)):
                        return name
                except OSError:
                    return name
    except (OSError, ValueError):
        return "RECORD"
    return None


def file_checksum(path):
    with open(path, "rb") as source:
        return copy_with_checksum(source, None)


def copy_with_checksum(source, target):
    """Copy a stream; returns its checksum in the format of a wheel's RECORD, and its size."""
    import base64
    import hashlib

    digest, size = hashlib.sha256(), 0
    while True:
        block = source.read(1 << 20)
        if not block:
            break
        digest.update(block)
        size += len(block)
        if target:
            target.write(block)
    return "sha256=" + base64.urlsafe_b64encode(digest.digest()).decode().rstrip("="), size


# Linking


def check_link_place():
    if os.path.lexists(LINK) and not os.path.islink(LINK):
        raise Failure(f"{LINK} exists and is not a symbolic link: move it elsewhere")


def link_to(target):
    """Atomically link .libtorch to `target`, so that a concurrent build never finds it missing."""
    if os.path.islink(LINK) and os.readlink(LINK) == target:
        return
    temporary = f"{LINK}.{os.getpid()}"
    try:
        os.symlink(target, temporary)
        os.replace(temporary, LINK)
    finally:
        if os.path.lexists(temporary):
            os.remove(temporary)
    say(f"linked .libtorch -> {target}")


def named_libtorch(path):
    """The folder with include/ and lib/ that PEFT_LIBTORCH means."""
    import glob

    path = os.path.abspath(os.path.expanduser(path))
    inner = ["", "torch", "libtorch", "lib/python3*/site-packages/torch", "lib64/python3*/site-packages/torch"]
    for pattern in inner:
        for folder in sorted(glob.glob(os.path.join(glob.escape(path), pattern))):
            if has_libtorch(folder):
                return os.path.realpath(folder)
    raise Failure(
        f"PEFT_LIBTORCH={path} is not a PyTorch with include/ATen/ATen.h and lib/libtorch_cpu "
        "(use a site-packages/torch folder, a libtorch folder or a virtual environment)"
    )


# Tools


def check_swift():
    if not shutil.which("swift"):
        raise Failure("swift is not on the PATH: install Swift 6.2 or newer and open a new shell")


def check_compiler():
    """The Swift toolchain includes clang, but on Linux the C++ headers come with the system compiler."""
    import subprocess

    beside_swift = os.path.join(os.path.dirname(os.path.realpath(shutil.which("swift") or "")), "clang++")
    compiler = shutil.which(beside_swift) or shutil.which("clang++") or shutil.which("g++")
    if not compiler:
        raise Failure("no C++ compiler found: install g++ (on macOS: xcode-select --install)")
    probe = subprocess.run(
        [compiler, "-x", "c++", "-std=c++20", "-fsyntax-only", "-"],
        input=b"#include <vector>\n", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
    )
    if probe.returncode != 0:
        raise Failure("the C++ standard library headers are missing: install the package g++")


def check_room(megabytes):
    place = cache_folder()
    free = shutil.disk_usage(place).free // 1_000_000
    if free < megabytes:
        raise Failure(f"{place} needs {megabytes} MB of free disk space but has {free} MB: {OTHER_PLACE}")


# Downloading wheels


class Pip:
    """`pip download` into a folder in the cache, for this machine, whatever Python runs this script."""

    def __init__(self, work):
        import importlib.util
        import subprocess

        if importlib.util.find_spec("pip") is None:
            raise Failure(f"{sys.executable} has no pip: install it (a package such as python3-pip), {OWN_TORCH}")
        self.work = work
        self.base = [sys.executable, "-m", "pip", "download", "--no-cache-dir", "--disable-pip-version-check",
                     "--no-input", "--progress-bar", "off", "--only-binary", ":all:"]
        known = subprocess.run(self.base[:4] + ["--help"], capture_output=True, text=True, check=False).stdout
        if "--resume-retries" in known:
            self.base += ["--resume-retries", "20"]
        self.explanation = ""

    def pythons(self):
        """pip options that select the Python version; libraries and headers are the same for all of them."""
        running = "{}.{}".format(*sys.version_info)
        platform = ["--platform", "macosx_14_0_arm64"] if machine() == "macos-arm64" else []
        if sys.implementation.name == "cpython" and not platform:
            yield []
        for version in ("3.11", "3.12", "3.13"):
            if version != running or platform:
                abi = "cp" + version.replace(".", "")
                yield ["--implementation", "cp", "--python-version", version, "--abi", abi] + platform

    def download(self, requirements, title):
        """The wheels that satisfy `requirements`, moved into the cache, or None if the index lacks them."""
        for options in self.pythons():
            wheels = self.attempt(options + requirements, title)
            if wheels is not None:
                return wheels
        return None

    def attempt(self, arguments, title):
        for trial in range(3):
            if trial:
                say(f"the download of {title} was interrupted, retrying")
            folder = os.path.join(self.work, "download")
            shutil.rmtree(folder, ignore_errors=True)
            os.makedirs(folder)
            status, output = self.run(self.base + ["--dest", folder] + arguments)
            if status == 0:
                return [keep_wheel(os.path.join(folder, name)) for name in sorted(os.listdir(folder))]
            if "No space left" in output:
                raise OSError(errno.ENOSPC, "No space left on device")
            errors = [line for line in output.splitlines() if line.startswith("ERROR: ")] or output.splitlines()
            self.explanation = errors[0].replace("ERROR: ", "") if errors else f"exit status {status}"
            unreachable = any(sign in output for sign in ("Retrying (", "onnection broken", "Could not fetch URL"))
            if "No matching distribution" in output:
                if unreachable:
                    raise Failure(f"pip cannot reach its package index: check the network, {OWN_TORCH}")
                return None
        raise Failure(f"pip could not download {title}: {self.explanation}")

    def run(self, command):
        """Exit status and output of pip. Prints progress on slow networks."""
        import subprocess

        # pip downloads to TMPDIR first: keep it on the disk whose space was checked.
        environment = dict(os.environ, TMPDIR=self.work)
        pip = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, errors="replace")
        output = None
        try:
            while output is None:
                try:
                    output = pip.communicate(timeout=15)[0]
                except subprocess.TimeoutExpired:
                    say(f"  {folder_size(self.work) // 1_000_000} MB")
        finally:
            if output is None:
                pip.kill()
        return pip.returncode, output


def folder_size(folder):
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(parent, name)).st_size
            except OSError:
                pass  # pip removed it meanwhile
    return total


def wheels_folder():
    return os.path.join(cache_folder(), "wheels")


def keep_wheel(path):
    """Move a finished download to the cache, where a later run finds it if this one is interrupted."""
    kept = os.path.join(wheels_folder(), os.path.basename(path))
    os.makedirs(wheels_folder(), exist_ok=True)
    os.replace(path, kept)
    return kept


def kept_wheel(version):
    """The torch wheel that an interrupted run downloaded, or None."""
    import glob
    import zipfile

    for path in sorted(glob.glob(os.path.join(glob.escape(wheels_folder()), f"torch-{version}-*.whl"))):
        if zipfile.is_zipfile(path):
            return path
        os.remove(path)
    return None


def torch_wheel(version, pip):
    """The path of the downloaded wheel of this version, or None if the index lacks it."""
    check_room(ROOM.get(version, ROOM[FULL_BUILD]))
    say(f"downloading the Python package torch {version} to {cache_folder()}")
    wheels = pip.download(["--no-deps", f"torch=={version}"], f"torch {version}")
    return wheels[0] if wheels else None


def cuda_requirements(wheel):
    """The packages of CUDA_LIBRARIES in the versions that a torch wheel requires."""
    import re
    import zipfile

    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = archive.read(name).decode("utf-8", "replace").splitlines()
    found = []
    for line in lines:
        match = re.match(r"Requires-Dist: ([\w-]+)(\[[^]]*\])?\s*\(?(==[\w.]+)", line)
        if match and match[1] == "cuda-toolkit":
            extras = [extra for extra in match[2].strip("[]").split(",") if extra in CUDA_EXTRAS]
            found.append(f"cuda-toolkit[{','.join(extras)}]{match[3]}")
        elif match and match[1].startswith(CUDA_PACKAGES):
            found.append(match[1] + match[3])
    return found


# Unpacking


def is_needed(name):
    """Whether a program that uses libtorch on a CPU needs this file of a wheel."""
    top, _, rest = name.partition("/")
    base = os.path.basename(name)
    if top == "torch" and rest.startswith("lib/"):
        return (".so" in base or ".dylib" in base) and not any(word in base for word in UNNEEDED)
    if top == "torch":
        return rest.startswith("include/")
    if top.endswith(".dist-info"):
        return base.upper().startswith(("LICENSE", "NOTICE"))
    return top == "torch.libs" or base.startswith(CUDA_LIBRARIES)


def unpack(wheel, folder):
    """Unpack the required files, verify their checksums, and return their RECORD lines."""
    import csv
    import io
    import zipfile

    try:
        with zipfile.ZipFile(wheel) as archive:
            record = next(name for name in archive.namelist() if name.endswith(".dist-info/RECORD"))
            lines = csv.reader(io.StringIO(archive.read(record).decode("utf-8")))
            expected = {line[0]: (line[1], int(line[2])) for line in lines if line[1]}
            members = [item for item in archive.infolist() if not item.is_dir() and is_needed(item.filename)]
            check_room(sum(item.file_size for item in members) // 1_000_000 + 50)
            unpacked = []
            for item in members:
                path = os.path.normpath(os.path.join(folder, item.filename))
                if not path.startswith(folder + os.sep):
                    raise zipfile.BadZipFile(f"{item.filename} points out of the wheel")
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with archive.open(item) as source, open(path, "wb") as target:
                    found = copy_with_checksum(source, target)
                if found != expected.get(item.filename):
                    raise zipfile.BadZipFile(f"{item.filename} differs from its checksum")
                unpacked.append((item.filename, *found))
            return unpacked
    except (zipfile.BadZipFile, EOFError, StopIteration, ValueError, LookupError) as error:
        os.remove(wheel)
        name = os.path.basename(wheel)
        raise Damaged(f"{name} is damaged ({error or 'not a wheel'}) and was removed: rerun this script") from None


def finish(folder, version, unpacked):
    """Write the checksums, then the marker that the folder is complete."""
    import csv

    with open(os.path.join(folder, "RECORD"), "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(unpacked)
    libraries = [name for name, _, _ in unpacked if ".so" in name or ".dylib" in name]
    write_marker(folder, version, libraries)


def write_marker(folder, version, libraries):
    path = os.path.join(folder, "complete.json")
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump({"version": version, "libraries": stamps(folder, libraries)}, file, indent=1)
    os.replace(path + ".new", path)


def check_loads(folder):
    """Load the library once, to check that all libraries it depends on are present."""
    import subprocess

    end = "dylib" if sys.platform == "darwin" else "so"
    path = os.path.join(folder, f"torch/lib/libtorch_cpu.{end}")
    code = "import ctypes, sys\ntry: ctypes.CDLL(sys.argv[1])\nexcept OSError as error: sys.exit(str(error))"
    probe = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    if probe.returncode != 0:
        reason = (probe.stderr.strip().splitlines() or [f"exit status {probe.returncode}"])[-1]
        raise Failure(f"the downloaded libtorch does not load on this machine: {reason} ({OWN_TORCH[3:]})")


def needs_cuda_libraries(folder):
    """Whether libtorch_cpu names one of them (a CPU build does not)."""
    import mmap

    path = os.path.join(folder, "torch/lib/libtorch_cpu.so")
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return any(data.find(b"\0" + name.encode()) >= 0 for name in CUDA_LIBRARIES)


def get(version, work):
    """Download this version to the cache; False if the index lacks it."""
    pip = Pip(work)
    kept = kept_wheel(version)
    wheel = kept or torch_wheel(version, pip)
    if wheel is None:
        say(f"the package index offers no torch {version} for this machine")
        return False
    wheels, folder = [wheel], os.path.join(work, "unpacked")
    say(("resuming with the finished download: " if kept else "") + "unpacking and verifying checksums")
    try:
        unpacked = unpack(wheel, folder)
    except Damaged:
        if not kept:
            raise
        say(f"the earlier download of torch {version} is damaged")
        shutil.rmtree(folder)
        return get(version, work)
    requirements = cuda_requirements(wheel)
    if requirements and needs_cuda_libraries(folder):
        say("downloading the two CUDA libraries that this build is linked to")
        extras = pip.download(requirements, " and ".join(requirements))
        if extras is None:
            raise Failure(f"pip found no {' '.join(requirements)}: {pip.explanation}")
        for extra in extras:
            unpacked += unpack(extra, folder)
        wheels += extras
    check_loads(folder)
    finish(folder, version, unpacked)

    final = folder_for(version)
    if os.path.lexists(final):
        os.rename(final, os.path.join(work, "damaged"))
    os.rename(folder, final)
    for path in wheels:
        os.remove(path)
    if not os.listdir(wheels_folder()):
        os.rmdir(wheels_folder())
    return True


def repair_or_get(versions, reusable):
    """The folder of a complete libtorch in the cache, downloaded under a lock if necessary."""
    import fcntl

    cache = cache_folder()
    os.makedirs(cache, exist_ok=True)
    with open(os.path.join(cache, "lock"), "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say("waiting for another setup that uses the same cache")
            fcntl.flock(lock, fcntl.LOCK_EX)

        work = os.path.join(cache, f"work-{os.getpid()}")
        for name in os.listdir(cache):  # left by killed runs
            if name.startswith("work-"):
                shutil.rmtree(os.path.join(cache, name), ignore_errors=True)
        for version in reusable:
            folder = folder_for(version)
            if is_complete(folder):
                return folder
            marker = read_marker(folder)
            if marker and find_damage(folder) is None:  # copied or touched, but undamaged
                write_marker(folder, marker["version"], list(marker["libraries"]))
                return folder
            if os.path.isdir(folder):
                say(f"{folder} is damaged, downloading it again")
        os.makedirs(work)
        try:
            for version in versions:
                if get(version, work):
                    return folder_for(version)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    raise Failure(
        f"pip found no torch {' or '.join(versions)} for this machine: check the network, the version of pip and "
        f"its package index, {OWN_TORCH}"
    )


# Commands


def set_up(verify):
    check_link_place()
    check_swift()
    named = os.environ.get("PEFT_LIBTORCH")
    if named:
        target = named_libtorch(named)
        if not os.path.islink(LINK) or os.readlink(LINK) != target:
            check_compiler()
        link_to(target)
        return

    linked = os.path.realpath(LINK)
    folder = os.path.dirname(linked)
    is_own = folder.startswith(os.path.realpath(cache_folder()) + os.sep) or read_marker(folder) is not None
    if has_libtorch(linked) and not is_own and not os.environ.get("PEFT_TORCH_VERSION"):
        say(f"keeping {linked}, linked from .libtorch (remove .libtorch for the default one)")
        return

    versions = sorted(wanted_versions(), key=lambda version: os.path.realpath(folder_for(version)) != folder)
    # Repair a damaged linked version instead of switching to another one in the cache.
    is_linked = os.path.isdir(folder) and folder == os.path.realpath(folder_for(versions[0]))
    reusable = versions[:1] if is_linked else versions
    if verify:
        forget_damaged(versions)
    whole = next((folder for folder in map(folder_for, reusable) if is_complete(folder)), None)
    if whole is None:
        check_compiler()
        whole = repair_or_get(versions, reusable)
    link_to(os.path.join(whole, "torch"))


def forget_damaged(versions):
    """Remove the completeness marker of folders with a file that differs from its checksum."""
    for folder in map(folder_for, versions):
        if read_marker(folder) is None:
            continue
        damaged = find_damage(folder)
        say(f"{folder}: " + (f"{damaged} is damaged" if damaged else "all checksums match"))
        if damaged:
            os.remove(os.path.join(folder, "complete.json"))


def check():
    if not has_libtorch(LINK):
        raise Failure(".libtorch does not link to a libtorch: run `make setup`")
    own = read_marker(os.path.dirname(os.path.realpath(LINK)))
    version = own["version"] if own else header_version(LINK)
    say(f"{version} in {os.path.realpath(LINK)}")


def main(arguments):
    if sys.version_info < (3, 9):
        raise Failure("python3 is older than 3.9")
    if arguments in (["-h"], ["--help"]):
        print(__doc__.strip())
    elif arguments == ["--check"]:
        check()
    elif arguments in ([], ["--verify"]):
        set_up(verify=bool(arguments))
    else:
        raise Failure(f"unknown arguments: {' '.join(arguments)} (see --help)")


def stop(signal_number, _):
    raise KeyboardInterrupt


if __name__ == "__main__":
    import signal

    signal.signal(signal.SIGTERM, stop)
    try:
        main(sys.argv[1:])
    except (Failure, OSError) as error:
        message = str(error)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            message = f"the disk of {cache_folder()} is full: free {max(ROOM.values())} MB on it, or {OTHER_PLACE}"
        elif isinstance(error, PermissionError) and not str(error.filename).startswith(CHECKOUT):
            message = f"{error.filename} cannot be written ({cache_folder()} is the cache): {OTHER_PLACE}"
        sys.exit(f"libtorch: error: {message}")
    except KeyboardInterrupt:
        print("libtorch: interrupted, rerun to continue", file=sys.stderr)
        sys.exit(130)
