#!/usr/bin/env python3
"""Build a program of another package that gets swift-peft by URL and version, as docs/library.md says.

Usage: Scripts/check_dependency.py [--configuration release]

The manifest, the commands and the program are those of the page; the program also has README's example, that of
docs/serving.md, the tutorials' and the method that CONTRIBUTING adds, so that the public interface suffices for all that the pages show. (The programs in Examples/
are in the package and see what is `package`.) The repository is a clone of this checkout's HEAD with a tag, and the
program also uses a package whose modules are named as those of swift-transformers and its dependencies. Takes as long
as a whole build. Exit status 1 if a command fails or the program prints no loss.
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


def blocks(page, language="swift"):
    """The code blocks of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [code for name, code in re.findall(r"```(\w+)\n(.*?)```", text, re.S) if name == language]


def as_function(code, name, effects="throws"):
    """A program's imports, and its statements as the body of a function."""
    lines = code.splitlines()
    imports = [line for line in lines if line.startswith("import ")]
    body = [line for line in lines if not line.startswith("import ")]
    return "\n".join(imports + [f"func {name}() {effects} {{"] + body + ["}", ""])


def sources():
    """The files of the program, by name: what the pages show to users of the package."""
    library = [code for code in blocks("docs/library.md") if "swift-tools-version" not in code]
    method = next(code for code in blocks("CONTRIBUTING.md") if ": PEFTMethod {" in code)
    readme = next(code for code in blocks("README.md") if "import PEFT\n" in code)
    use = """
PEFTMethods.register(OutputGate.self)
let gates = try Adapter(MethodChoice(OutputGate.self), on: folder.load())
print("trained gates: \\(gates.trainableCount)")
"""
    return {
        "main.swift": "".join(library) + use,
        "OutputGate.swift": method,
        "Readme.swift": as_function(readme, "readme"),
        "Serving.swift": as_function(blocks("docs/serving.md")[0], "serving", "async throws"),
        "Served.swift": as_function(blocks("docs/SwiftPEFT.docc/FromDataToServedAdapter.md")[0], "served"),
        "Ideas.swift": as_function(blocks("docs/SwiftPEFT.docc/IdeasOfPEFT.md")[0], "ideas"),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configuration", default="release")
    configuration = parser.parse_args().configuration
    manifest = next(code for code in blocks("docs/library.md") if "swift-tools-version" in code)
    commands = next(code for code in blocks("docs/library.md", "sh") if "setup-libtorch" in code)
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
        for file, code in sources().items():
            write(app / "Sources/my-app" / file, (imports if file == "main.swift" else "") + code)
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
        if not re.search(r"trained gates: [1-9]", output):
            sys.exit("the program's own method has no trained parameters")
    print("ok: the instructions of docs/library.md work")


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"failed with status {error.returncode}: {' '.join(map(str, error.cmd))}")
