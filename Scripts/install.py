#!/usr/bin/env python3
"""Install the built program with its libraries, completions and manual page, or remove them.

Usage: Scripts/install.py [--prefix /usr/local] [--destdir FOLDER] [--program .build/release/peft] [--uninstall]

  lib/swift-peft      peft, peft-server if it is built, libtorch, Swift's libraries, the embedded model. Programs find libraries
                      beside themselves, so neither the checkout nor a Swift toolchain is needed afterwards.
  bin                 symbolic links
  share               completions for bash, zsh and fish; peft(1)

`lib/swift-peft/installed` lists the files, which --uninstall removes, and no others. The libraries of a CPU libtorch and OpenBLAS take 460 MB. A
linked PyTorch (PEFT_LIBTORCH) is larger and stays where it is.
"""

import argparse
import gzip
import os
import pathlib
import re
import shutil
import subprocess
import sys

import manual
import update_docs

ROOT = pathlib.Path(__file__).resolve().parent.parent
HOME = pathlib.PurePath("lib/swift-peft")
COMPLETIONS = {
    "bash": "share/bash-completion/completions/peft", "zsh": "share/zsh/site-functions/_peft",
    "fish": "share/fish/vendor_completions.d/peft.fish",
}


def needed_libraries(program):
    """Paths of the libraries that the system doesn't have: libtorch's and Swift's."""
    lines = subprocess.run(["ldd", program], check=True, stdout=subprocess.PIPE, text=True).stdout
    found = []
    for name, path in re.findall(r"(?m)^\s*(\S+) => (\S+)", lines):
        if path == "not":
            sys.exit(f"{program} needs {name}, which is missing")
        if not re.match(r"/(usr/)?lib(64)?/", path):
            found.append(pathlib.Path(path))
    return found


def files(program, with_libtorch=True):
    """What is installed below the prefix: (relative path, source file or contents)."""
    result = []
    programs = [path for path in (program, program.with_name("peft-server")) if path.exists()]
    libraries = {}
    for path in programs:
        result.append((HOME / path.name, path))
        if sys.platform == "linux":
            libraries.update({library.name: library for library in needed_libraries(path)})
    torch = (ROOT / ".libtorch/lib").resolve()
    # OpenBLAS is loaded when it is there.
    if (torch / "libscipy_openblas.so").exists():
        libraries["libscipy_openblas.so"] = torch / "libscipy_openblas.so"
    if not with_libtorch:
        libraries = {name: path for name, path in libraries.items() if path.resolve().parent != torch}
    result += [(HOME / name, path) for name, path in sorted(libraries.items())]
    model = ROOT / "Models/tiny-t5"
    result += [(HOME / "Models/tiny-t5" / path.name, path) for path in sorted(model.iterdir()) if path.is_file()]

    def peft(*words):
        return subprocess.run([program, *words], check=True, stdout=subprocess.PIPE).stdout

    for shell, path in COMPLETIONS.items():
        result.append((pathlib.PurePath(path), peft("--generate-completion-script", shell)))
    page = subprocess.run(
        [sys.executable, ROOT / "Scripts/manual.py", "--program", program], check=True, stdout=subprocess.PIPE).stdout
    result.append((pathlib.PurePath("share/man/man1/peft.1.gz"), gzip.compress(page, mtime=0)))
    return result


def links(program):
    """Symbolic links below the prefix, with their targets."""
    names = [name for name in ("peft", "peft-server") if program.with_name(name).exists()]
    return [(pathlib.PurePath("bin") / name, pathlib.PurePath("..") / HOME / name) for name in names]


def install(program, root, with_libtorch=True):
    """Install below `root`; a file appears whole or not at all."""
    installed = []
    for name, source in files(program, with_libtorch):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".new")
        if isinstance(source, bytes):
            temporary.write_bytes(source)
        else:
            shutil.copyfile(source, temporary)
        temporary.chmod(0o755 if name in (HOME / "peft", HOME / "peft-server") else 0o644)
        os.replace(temporary, path)
        installed.append(name)
    for name, target in links(program):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink() or path.exists():
            path.unlink()
        path.symlink_to(target)
        installed.append(name)
    (root / HOME / "installed").write_text("".join(f"{name}\n" for name in installed), encoding="utf-8")
    return installed


def uninstall(root):
    """Remove what `install` installed, and folders that are then empty."""
    record = root / HOME / "installed"
    if not record.exists():
        sys.exit(f"{record} is missing: nothing is installed there")
    folders = {root / HOME}
    for name in record.read_text(encoding="utf-8").splitlines():
        path = root / name
        folders.add(path.parent)
        path.unlink(missing_ok=True)
    record.unlink()
    for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
        while folder != root and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
            folder = folder.parent


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prefix", default="/usr/local")
    parser.add_argument("--destdir", default="")
    parser.add_argument("--program", type=pathlib.Path)
    parser.add_argument("--without-libtorch", action="store_true", help="leave libtorch where .libtorch links to")
    parser.add_argument("--uninstall", action="store_true")
    options = parser.parse_args()
    root = pathlib.Path(options.destdir + options.prefix if options.destdir else options.prefix)
    if options.uninstall:
        uninstall(root)
        return print(f"removed from {root}")
    program = (options.program or update_docs.built_program()).resolve()
    installed = install(program, root, not options.without_libtorch)
    print(f"{len(installed)} files in {root}")


if __name__ == "__main__":
    main()
