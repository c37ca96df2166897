#!/usr/bin/env python3
"""Write the manual page of peft from what the program says about itself.

Usage: Scripts/manual.py [--program .build/release/peft] > peft.1

Commands and options are those of `peft --experimental-dump-help`, options of methods those of `peft methods --json`, environment variables
those of docs/install.md.
"""

import argparse
import json
import pathlib
import re
import subprocess

import update_docs

ROOT = pathlib.Path(__file__).resolve().parent.parent


def escaped(text):
    """Text as roff: no escapes, no requests, ASCII."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    text = "".join(character if character.isascii() else f"\\[u{ord(character):04X}]" for character in text)
    return "\n".join(("\\&" + line if line[:1] in (".", "'") else line) for line in text.splitlines())


def paragraphs(text):
    """A discussion: indented lines are code, others are filled."""
    lines, code, indent = [], False, ""
    for line in text.splitlines():
        if line.startswith("  ") or re.match(r"peft \w", line):
            if not code:
                lines.append(".PP\n.nf\n.RS 4")
                indent = re.match(" *", line)[0]
            code = True
            lines.append(escaped(line.removeprefix(indent).rstrip()))
            continue
        if code:
            lines.append(".RE\n.fi")
            code = False
        lines.append(escaped(line) if line.strip() else ".PP")
    return "\n".join(lines + ([".RE\n.fi"] if code else []))


def option(argument):
    """An argument of a command as a tagged paragraph."""
    names = [("--" if name["kind"] == "long" else "-") + name["name"] for name in argument.get("names", [])]
    value = argument.get("valueName", "value")
    if argument["kind"] == "positional":
        tag = f"\\fI{escaped(value)}\\fR"
    else:
        tag = ", ".join(f"\\fB{escaped(name)}\\fR" for name in sorted(names, key=len))
        if argument["kind"] == "option":
            tag += f" \\fI{escaped(value)}\\fR"
    help = argument.get("abstract", "")
    default = argument.get("defaultValue")
    if default and "(default" not in help:
        help += f" (default: {default})"
    return f".TP\n{tag}\n{escaped(help)}"


def environment():
    """Environment variables as (names, meaning), from the table of docs/install.md."""
    page = (ROOT / "docs/install.md").read_text(encoding="utf-8")
    table = page.partition("## Environment variables")[2]
    for names, meaning in re.findall(r"(?m)^\| (`.*?) \| (.*) \|$", table):
        plain = re.sub(r"\[([^]]*)\]\(([^)]*)\)", r"\1", meaning).replace("`", "")
        yield names.replace("`", ""), plain


def manual(help, methods, version):
    command = help["command"]
    lines = [
        f'.TH PEFT 1 "" "swift\\-peft {escaped(version)}" "User Commands"', ".SH NAME",
        f"peft \\- {escaped(command['abstract'].rstrip('.').replace('(PEFT) ', ''))}", ".SH SYNOPSIS",
        ".B peft", ".I command", "[\\fIoption\\fR ...]", ".SH DESCRIPTION", paragraphs(command.get("discussion", "")),
        ".SH COMMANDS",
    ]
    for sub in command["subcommands"]:
        if sub["commandName"] == "help":
            continue
        lines += [f".SS peft {escaped(sub['commandName'])}", escaped(sub.get("abstract", ""))]
        if sub.get("discussion"):
            lines += [".PP", paragraphs(sub["discussion"])]
        lines += [option(argument) for argument in sub.get("arguments", []) if argument.get("shouldDisplay", True)
                  and argument.get("valueName") != "help"]
    lines += [".SH METHODS", "Values of \\fB\\-\\-method\\fR, with their options."]
    for method in methods:
        lines += [f".SS {escaped(method['name'])}", escaped(method["summary"]) + "."]
        lines += [f".TP\n\\fB\\-\\-{escaped(option['name'])}\\fR\n{escaped(option['help'])}" for option in method["options"]]
    lines.append(".SH ENVIRONMENT")
    lines += [f".TP\n{escaped(names)}\n{escaped(meaning)}" for names, meaning in environment()]
    lines += [
        ".SH EXIT STATUS", "0 is success, 1 a failure, 64 wrong usage, 128 plus its number a signal.", ".SH SEE ALSO",
        "The folder \\fIdocs\\fR of the project.",
    ]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program")
    program = parser.parse_args().program or update_docs.built_program()

    def peft(*words):
        return subprocess.run([program, *words], check=True, stdout=subprocess.PIPE, text=True).stdout

    print(manual(json.loads(peft("--experimental-dump-help")), json.loads(peft("methods", "--json")),
                 peft("--version").strip().split()[-1]), end="")


if __name__ == "__main__":
    main()
