#!/usr/bin/env python3
"""Write what the program knows into the documentation: the facts of docs/methods/NAME.md and the table of docs/methods.md.

Usage: Scripts/update_docs.py [--check] [--program .build/release/peft]

  --check    change nothing; exit status 1 if a page is out of date, a method has no page, or a page no method

A page of docs/methods is prose, the line `<!-- facts -->`, and what `peft methods NAME --markdown` prints. A test of
`make test` compares the same with the code.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
MARK = "\n<!-- facts -->\n"


def with_facts(page, facts):
    """A page with the facts after the mark in place of what was there."""
    prose, mark, _ = page.partition(MARK)
    if not mark:
        prose = page.rstrip("\n") + "\n"
    return prose + MARK + "\n" + facts.strip("\n") + "\n"


def with_table(page, table):
    """A page with another table of methods, which begins with the same header."""
    header = re.escape(table.splitlines()[0])
    new, count = re.subn(rf"(?m)^{header}\n(\|.*\n)+", lambda _: table.strip("\n") + "\n", page)
    if count != 1:
        raise ValueError("the page has no table of methods")
    return new


def built_program():
    """The newest build of peft."""
    found = [path for path in (ROOT / ".build/release/peft", ROOT / ".build/debug/peft") if path.exists()]
    if not found:
        sys.exit("no built peft: run make build, or pass --program")
    return max(found, key=lambda path: path.stat().st_mtime)


def pages(program):
    """The text of each generated page, by path."""
    def peft(*words):
        return subprocess.run([program, *words], check=True, stdout=subprocess.PIPE, text=True).stdout

    result = {}
    for method in json.loads(peft("methods", "--json")):
        path = ROOT / "docs/methods" / f"{method['name']}.md"
        if not path.exists():
            sys.exit(f"{path.relative_to(ROOT)} is missing: write what the method is and when to use it")
        result[path] = with_facts(path.read_text(encoding="utf-8"), peft("methods", method["name"], "--markdown"))
    extra = set((ROOT / "docs/methods").glob("*.md")) - set(result)
    if extra:
        sys.exit(f"pages of no method: {', '.join(sorted(path.name for path in extra))}")
    path = ROOT / "docs/methods.md"
    result[path] = with_table(path.read_text(encoding="utf-8"), peft("methods", "--markdown"))
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--program")
    options = parser.parse_args()
    changed = []
    for path, text in pages(options.program or built_program()).items():
        if path.read_text(encoding="utf-8") != text:
            changed.append(str(path.relative_to(ROOT)))
            if not options.check:
                path.write_text(text, encoding="utf-8")
    if changed and options.check:
        sys.exit("out of date: " + ", ".join(changed) + "; run Scripts/update_docs.py")
    print(f"{len(changed)} pages changed" if changed else "all pages are up to date")


if __name__ == "__main__":
    main()
