#!/usr/bin/env python3
"""Build the reference of the libraries, with the tutorials, by DocC. Warnings are errors.

Usage: Scripts/docc.py [--configuration release] [--output .build/swift-peft.doccarchive]

Reads the modules that `make build` (or `swift build`) left in .build, so that nothing is built for the documentation and the package
needs no plugin. One archive holds all libraries: a doc comment's link to a declaration of another library becomes an absolute one,
and a link to a declaration that isn't public becomes code. To read the archive: docc preview, or any web server for static
hosting (docc process-archive transform-for-static-hosting).
"""

import argparse
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
CATALOG = ROOT / "docs/SwiftPEFT.docc"
MODULES = [
    "PEFT", "Training", "Experiments", "Serving", "LanguageModels", "TorchNN", "Torch", "PEFTTokenizers", "PEFTSupport",
]
LINK = re.compile(r"``([^`]+)``")


def tool(name):
    """A program of the Swift toolchain."""
    found = shutil.which(name)
    if not found:
        swift = shutil.which("swift")
        beside = pathlib.Path(swift).resolve().parent / name if swift else None
        if beside is None or not beside.exists():
            sys.exit(f"{name} is missing: install a Swift toolchain that has it")
        found = str(beside)
    return found


def target():
    """The triple of this machine, as the compiler names it."""
    info = subprocess.run(["swift", "-print-target-info"], check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(info)["target"]["unversionedTriple"]


def extract(build, folder):
    """Write the symbol graph of each library's public declarations."""
    modules = build / "Modules"
    maps = [build / f"{name}.build/module.modulemap" for name in ("CTorch", "CHub")]
    maps.append(ROOT / "Sources/CKernels/include/module.modulemap")
    flags = [flag for path in maps if path.exists() for flag in ("-Xcc", f"-fmodule-map-file={path}")]
    for name in MODULES:
        if not (modules / f"{name}.swiftmodule").exists():
            sys.exit(f"{name} isn't built: run make build, or swift build")
        subprocess.run(
            [tool("swift-symbolgraph-extract"), "-module-name", name, "-I", modules, *flags, "-target", target(),
             "-output-dir", folder, "-minimum-access-level", "public", "-skip-synthesized-members"], check=True)
    # Extensions of the standard library's types.
    for path in folder.glob("*@*"):
        path.unlink()


def public_paths(graphs):
    """The paths of each module's declarations, as in links: `Adapter/merge()`."""
    return {name: {"/".join(symbol["pathComponents"]) for symbol in graph["symbols"]} for name, graph in graphs.items()}


def resolved(link, module, components, paths):
    """What a link of a doc comment becomes: itself, an absolute one, or code.

    `components` is the path of the declaration whose comment it is. DocC looks below it, beside it, and so on up to the module."""
    for depth in range(len(components), -1, -1):
        if "/".join([*components[:depth], link]) in paths[module]:
            return f"``{link}``"
    for other in paths:
        if link in paths[other]:
            return f"``/{other}/{link}``"
        if link == other:
            return f"``/{other}``"
    return f"`{link}`"


def resolve_links(graphs):
    """Resolve the links of all doc comments."""
    paths = public_paths(graphs)
    for module, graph in graphs.items():
        for symbol in graph["symbols"]:
            for line in symbol.get("docComment", {}).get("lines", []):
                line["text"] = LINK.sub(
                    lambda match: resolved(match[1], module, symbol["pathComponents"], paths), line["text"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configuration", default="release")
    parser.add_argument("--build", type=pathlib.Path, help="the folder of the built modules, in place of .build/CONFIGURATION")
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / ".build/swift-peft.doccarchive")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        extract((options.build or ROOT / ".build" / options.configuration).resolve(), folder)
        graphs = {path.name.split(".")[0]: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")}
        resolve_links(graphs)
        for module, graph in graphs.items():
            (folder / f"{module}.symbols.json").write_text(json.dumps(graph), encoding="utf-8")
        result = subprocess.run(
            [tool("docc"), "convert", CATALOG, "--additional-symbol-graph-dir", folder, "--output-path", options.output,
             "--fallback-display-name", "swift-peft", "--fallback-bundle-identifier", "swift-peft",
             "--warnings-as-errors"])
    if result.returncode:
        sys.exit("the documentation has warnings or errors")
    print(f"ok: {options.output}")


if __name__ == "__main__":
    main()
