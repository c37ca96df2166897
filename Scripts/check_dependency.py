#!/usr/bin/env python3
"""Build a program of another package that gets swift-peft by URL and version, as docs/library.md says.

Usage: Scripts/check_dependency.py [--configuration release]

The manifest, the commands and the program are those of the page. The repository is a clone of this checkout's HEAD
with a tag, and the program also uses a package whose modules are named as those of swift-transformers and its
dependencies. Takes as long as a whole build. Exit status 1 if a command fails or the program prints no loss.
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
VERSION = "99.0.0"
# Modules of swift-transformers, swift-jinja and swift-huggingface; Support is a common name.
OTHERS = ["Tokenizers", "Hub", "Jinja", "Support", "Models", "Generation"]


def run(*command, cwd):
    print("$ " + " ".join(map(str, command)), flush=True)
    return subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.PIPE, text=True).stdout


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def repository(folder):
    """A bare clone of HEAD whose only tag is VERSION."""
    clone = folder / "swift-peft"
    run("git", "clone", "--quiet", "--bare", "--no-hardlinks", ROOT, clone, cwd=folder)
    run("git", "tag", VERSION, cwd=clone)
    return clone


def other_package(folder):
    package = folder / "others"
    targets = "".join(f'.target(name: "{name}"), ' for name in OTHERS)
    names = "".join(f'"{name}", ' for name in OTHERS)
    write(package / "Package.swift", f"""// swift-tools-version: 6.2
import PackageDescription
let package = Package(
    name: "others", products: [.library(name: "Others", targets: [{names}])], targets: [{targets}])
""")
    for name in OTHERS:
        write(package / "Sources" / name / f"{name}.swift", f"public enum {name}Marker {{}}\n")
    return package


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configuration", default="release")
    configuration = parser.parse_args().configuration
    page = (ROOT / "docs/library.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(\w+)\n(.*?)```", page, re.S)
    program = next(text for language, text in blocks if language == "swift")
    manifest = next(text for language, text in blocks if "swift-tools-version" in text)
    commands = next(text for language, text in blocks if language == "sh" and "setup-libtorch" in text)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name).resolve()
        app = folder / "my-app"
        manifest, count = re.subn(r'url: "[^"]*", from: "[^"]*"', f'url: "file://{repository(folder)}", from: "{VERSION}"', manifest)
        if count != 1:
            sys.exit("docs/library.md: the manifest has no dependency by URL and version")
        manifest = manifest.replace('dependencies: [.package', f'dependencies: [.package(path: "{other_package(folder)}"), .package', 1)
        manifest = manifest.replace('dependencies: [.product', 'dependencies: [.product(name: "Others", package: "others"), .product', 1)
        write(app / "Package.swift", manifest)
        imports = "".join(f"import {name}\n" for name in OTHERS)
        write(app / "Sources/my-app/main.swift", imports + program)
        for file, count in (("train.jsonl", 64), ("test.jsonl", 16)):
            rows = (ROOT / "Examples/dialogues" / file).read_text(encoding="utf-8").splitlines(keepends=True)
            write(app / file, "".join(rows[:count]))
        for line in filter(None, commands.splitlines()):
            words = line.split()
            run(*words, *(["-c", configuration] if words[:2] == ["swift", "build"] else []), cwd=app)
        output = run(".build/" + configuration + "/my-app", cwd=app)
        print(output)
        if not re.search(r"loss [0-9.]+", output):
            sys.exit("the program printed no loss")
    print("ok: the instructions of docs/library.md work")


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"failed with status {error.returncode}: {' '.join(map(str, error.cmd))}")
