#!/usr/bin/env python3
"""Build a Debian package of the built program.

Usage: Scripts/make_deb.py [--program .build/release/peft] [--output .build] [--compression xz]

libtorch is inside: a package that downloads it when it is installed would need pip and a network on every host, and the program runs with
exactly the libtorch that it was built and tested with. That makes the package large: 600 MB once it is installed.
Libraries of the system are dependencies with the versions that the program needs. Build on the oldest release that is to be
supported, as the C library of a newer one has newer versions.
"""

import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

import install
import update_docs


def output(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def largest_version(prefix, paths):
    """The newest version of a library's symbols that programs and libraries need, such as 2.34 of GLIBC_."""
    versions = set()
    for path in paths:
        versions.update(re.findall(rf"\({prefix}([0-9.]+)\)", output("objdump", "-T", path)))
    return max(versions, key=lambda version: [int(part) for part in version.split(".")], default=None)


def dependencies(paths):
    """Packages of the system that the binaries need."""
    # A name below /lib or /usr/lib, which are one folder; packages list either.
    system = set()
    for path in paths:
        for library in re.findall(r"(?m)^\s*\S+ => (?:/usr)?(/lib\S+)", output("ldd", path)):
            system.add(library)
    packages = set()
    for library in sorted(system):
        places = [library, "/usr" + library]
        places += [str(pathlib.Path(place).resolve()) for place in places]
        for place in places:
            found = subprocess.run(
                ["dpkg", "-S", place], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
            if found:
                packages.add(found.split(":")[0])
                break
        else:
            sys.exit(f"no package owns {library}: build on Debian or Ubuntu")
    versions = {"libc6": largest_version("GLIBC_", paths)}
    named = [f"{package} (>= {versions[package]})" if versions.get(package) else package for package in sorted(packages)]
    return ", ".join(named)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=pathlib.Path)
    parser.add_argument("--output", type=pathlib.Path, default=install.ROOT / ".build")
    parser.add_argument("--compression", default="xz", help="as of dpkg-deb -Z; none is for trials")
    options = parser.parse_args()
    program = (options.program or update_docs.built_program()).resolve()
    version = output(program, "--version").strip().split()[-1]
    architecture = output("dpkg", "--print-architecture").strip()
    with tempfile.TemporaryDirectory() as name:
        root = pathlib.Path(name) / "root"
        installed = install.install(program, root / "usr")
        home = root / "usr" / install.HOME
        # dpkg has its own list.
        (home / "installed").unlink()
        zsh = root / "usr" / install.COMPLETIONS["zsh"]
        vendor = root / "usr/share/zsh/vendor-completions"
        vendor.mkdir()
        zsh.rename(vendor / "_peft")
        zsh.parent.rmdir()
        copyright = root / "usr/share/doc/swift-peft"
        copyright.mkdir(parents=True)
        (copyright / "copyright").write_bytes((install.ROOT / "LICENSE").read_bytes())
        binaries = [home / path.name for path in installed if path.parent == install.HOME]
        size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file() and not path.is_symlink())
        control = root / "DEBIAN"
        control.mkdir()
        (control / "control").write_text(f"""Package: swift-peft
Version: {version}
Architecture: {architecture}
Maintainer: swift-peft maintainers <maintainers@localhost>
Installed-Size: {size // 1024}
Depends: {dependencies(binaries)}
Suggests: bash-completion
Section: science
Priority: optional
Description: parameter-efficient fine-tuning of language models
 The command peft fine-tunes pretrained language models, in full or by LoRA and
 other parameter-efficient methods, evaluates and compares the results, and
 writes files that Hugging Face's libraries read. libtorch is included.
""", encoding="utf-8")
        package = options.output / f"swift-peft_{version}_{architecture}.deb"
        subprocess.run(["dpkg-deb", "--root-owner-group", f"-Z{options.compression}", "--build", root, package], check=True)
    print(f"{package}: {package.stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
