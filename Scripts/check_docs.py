#!/usr/bin/env python3
"""Check the documentation against the built program.

Usage: Scripts/check_docs.py [--program .build/release/peft] [--only pages|formulas|commands|tutorials]

  pages       the generated parts are up to date (Scripts/update_docs.py --check), and links lead to files
  formulas    the cost formulas of docs/methods equal the number of trained parameters of a projection; options exist
  commands    every `peft …` command of README and docs has options that its command knows
  tutorials   the commands of the tutorials run in order, and print what the pages quote

Exit status 1 with a line for each fault. Without peft-server beside the program, blocks that serve are left out.
"""

import argparse
import json
import math
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

import update_docs

ROOT = pathlib.Path(__file__).resolve().parent.parent
TUTORIALS = ["FromDataToServedAdapter", "IdeasOfPEFT"]


def prose_pages():
    """README, docs and what else users read."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


# Pages


def broken_links(path, text):
    """Relative links of a page that lead nowhere."""
    text = re.sub(r"(?s)```.*?```|`[^`\n]*`", "", text)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        name = link.partition("#")[0]
        if name and "://" not in name and not (path.parent / name).exists():
            yield f"{path.relative_to(ROOT)}: the link {link} leads nowhere"


def check_pages(program):
    result = subprocess.run(
        [sys.executable, ROOT / "Scripts/update_docs.py", "--check", "--program", program],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    if result.returncode:
        yield result.stderr.strip()
    for path in prose_pages():
        yield from broken_links(path, path.read_text(encoding="utf-8"))


# Formulas


def cost_formula(page):
    """The cost per projection (layer, sublayer, norm) that a page states, as a Python expression with the options of its letters; None without one."""
    match = re.search(r"^- \*\*Cost\*\*: `([^`]+)` per (?:projection|layer|sublayer|norm)\b(.*?)(?=^- )", page, re.S | re.M)
    if not match:
        return None
    letters = dict(re.findall(r"\b([\w₀]+)(?: is|,)\s+`--([\w-]+)`", match[2]))
    expression = match[1].replace("·", "*").replace("²", "**2").replace("₀", "0")
    expression = re.sub(r"⌈([^⌉]*)⌉", r"ceil(\1)", expression)
    expression = re.sub(r"\bin\b", "inputs", expression)
    return expression, {letter.replace("₀", "0"): option for letter, option in letters.items()}


def check_formulas(program):
    checked = 0
    training = known_options(program)[0]["train"]
    for path in sorted((ROOT / "docs/methods").glob("*.md")):
        page = path.read_text(encoding="utf-8").partition(update_docs.MARK)[0]
        facts = json.loads(subprocess.run(
            [program, "methods", path.stem, "--json"], check=True, stdout=subprocess.PIPE, text=True).stdout)[0]
        options = training | {"--" + option["name"] for option in facts["options"]}
        for name in re.findall(r"`(--[a-z][\w-]*)", page):
            # Options of other commands, and of the method that the page refers to.
            if name not in options and name not in ("--method", "--zeros", "--save-projection"):
                yield f"{path.relative_to(ROOT)}: the method has no option {name}"
        formula = cost_formula(page)
        if formula is None:
            continue
        expression, letters = formula
        site = facts["example"]
        defaults = {option["name"]: option["default"] for option in facts["options"]}
        unknown = [option for option in letters.values() if option not in defaults]
        if unknown:
            yield f"{path.relative_to(ROOT)}: the method has no option --{unknown[0]}"
            continue
        values = {letter: defaults[option] for letter, option in letters.items()}
        # Other sites than projections have the hidden size, the largest of all.
        size = max(max(tensor["shape"]) for tensor in site["tensors"])
        values.update(inputs=site.get("inputs"), out=site.get("outputs"), size=size)
        # An option whose default follows from the model.
        if path.stem == "qalora":
            values["g"] = 32
        if path.stem == "osf":
            values["k"] = min(site["inputs"], site["outputs"]) // 2
        trained = sum(math.prod(tensor["shape"]) for tensor in site["tensors"] if tensor["trained"])
        try:
            stated = eval(expression, {"ceil": math.ceil, "min": min}, values)  # of this repository's own pages
        except (NameError, SyntaxError, TypeError) as error:
            yield f"{path.relative_to(ROOT)}: {expression}: {error}"
            continue
        checked += 1
        if stated != trained:
            yield f"{path.relative_to(ROOT)}: {expression} is {stated}, but {trained} parameters are trained there"
    print(f"  {checked} formulas")


# Commands


def commands(text):
    """The `peft …` commands of a page's code, with continued lines joined."""
    blocks = re.findall(r"(?s)```sh\n(.*?)```", text)
    blocks += ["\n".join(line[4:] for line in block.splitlines())
               for block in re.findall(r"(?m)(?:^    \S.*\n|^      .*\n)+", re.sub(r"(?s)```.*?```", "", text))]
    for block in blocks:
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            if re.match(r"(\w+=\S+ )*peft ", line):
                yield line


def known_options(program):
    """The names of options by command, and of all methods' options."""
    tree = json.loads(subprocess.run(
        [program, "--experimental-dump-help"], check=True, stdout=subprocess.PIPE, text=True).stdout)["command"]

    def names(command):
        return {("--" if name["kind"] == "long" else "-") + name["name"]
                for argument in command.get("arguments", []) for name in argument.get("names", [])}

    found = {command["commandName"]: names(command) for command in tree["subcommands"]}
    methods = json.loads(subprocess.run(
        [program, "methods", "--json"], check=True, stdout=subprocess.PIPE, text=True).stdout)
    return found, {"--" + option["name"] for method in methods for option in method["options"]}


def check_commands(program):
    by_command, of_methods = known_options(program)
    checked = 0
    for path in prose_pages():
        for line in commands(path.read_text(encoding="utf-8")):
            where = f"{path.relative_to(ROOT)}: {line.strip()[:80]}"
            try:
                words = shlex.split(line, comments=True)
            except ValueError as error:
                yield f"{where}: {error}"
                continue
            words = words[words.index("peft") + 1:]
            command, rest = (words[0], words[1:]) if words else ("", [])
            if command not in by_command:
                if command[:1].isupper() or command.startswith("-"):
                    continue
                yield f"{where}: unknown command '{command}'"
                continue
            # The server and the words after `launch` parse their options themselves.
            if command in ("serve", "runs", "launch"):
                continue
            checked += 1
            allowed = by_command[command] | {"--config", "--quiet", "--help", "-h"}
            if "--method" in allowed or "--methods" in allowed:
                allowed |= of_methods
            for word in rest:
                name = word.partition("=")[0]
                if re.fullmatch(r"--[a-z][\w-]*|-[a-z]", name) and name not in allowed:
                    yield f"{where}: {command} has no option {name}"
    print(f"  {checked} commands")


# Tutorials


def steps(text):
    """The (kind, code) blocks of a tutorial that are run or quoted."""
    return [(kind, code) for kind, code in re.findall(r"(?s)```(\w+)\n(.*?)```", text) if kind in ("sh", "text")]


def check_tutorial(name, program, folder):
    page = f"docs/SwiftPEFT.docc/{name}.md"
    serves = (pathlib.Path(program).resolve().parent / "peft-server").exists() and shutil.which("curl")
    blocks, quotes = [], {}
    for kind, code in steps((ROOT / page).read_text(encoding="utf-8")):
        if kind == "text":
            quotes[len(blocks) - 1] = code.splitlines()
        else:
            blocks.append(code if serves or "peft serve" not in code else "true\n")
    os.symlink(ROOT / "Examples", folder / "Examples")
    binaries = folder / "bin"
    binaries.mkdir()
    (binaries / "peft").symlink_to(pathlib.Path(program).resolve())
    environment = dict(os.environ, PATH=f"{binaries}:{os.environ['PATH']}", PEFT_MODELS=str(ROOT / "Models"))
    if serves:
        (binaries / "peft-server").symlink_to(pathlib.Path(program).resolve().parent / "peft-server")
    script = "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n"
    for index, code in enumerate(blocks):
        script += f"exec > block{index} 2>&1\n{code}"
    result = subprocess.run(["bash", "-c", script], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    outputs = [folder / f"block{index}" for index in range(len(blocks))]
    if result.returncode:
        last = [path for path in outputs if path.exists()][-1]
        tail = " / ".join(last.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:])
        yield f"{page}: block {last.name[5:]} ended with status {result.returncode}: {tail}"
        return
    for index, lines in quotes.items():
        output = outputs[index].read_text(encoding="utf-8", errors="replace")
        for line in lines:
            if line not in output:
                yield f"{page}: the output lacks '{line}'"
    print(f"  {name}: {len(blocks)} blocks{'' if serves else ', without the server'}")


def check_tutorials(program):
    for name in TUTORIALS:
        with tempfile.TemporaryDirectory() as folder:
            yield from check_tutorial(name, program, pathlib.Path(folder))


CHECKS = {"pages": check_pages, "formulas": check_formulas, "commands": check_commands, "tutorials": check_tutorials}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program")
    parser.add_argument("--only", choices=list(CHECKS))
    options = parser.parse_args()
    program = str(pathlib.Path(options.program or update_docs.built_program()).resolve())
    faults = []
    for name, check in CHECKS.items():
        if options.only in (None, name):
            print(f"{name}:", flush=True)
            faults += check(program)
    for fault in faults:
        print(fault, file=sys.stderr)
    sys.exit(f"{len(faults)} faults" if faults else None)


if __name__ == "__main__":
    main()
