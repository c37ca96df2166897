"""Writes Sources/Tokenizers/Text/ScriptTable.swift, and scripts.json beside this script.

    python make_script_fixtures.py

needs tokenizers and regex, whose `\\p{Script=…}` is where the table comes from. The reference's tables end with Unicode 9:
the Swift side asks each scalar for its age, so the table says nothing of younger ones, and runs go over gaps. The fixture
holds digests of where the reference cuts text with every scalar.
"""

import regex
from regex import _regex_core
from make_fixtures import PACKAGE, digest, write
from tokenizers import pre_tokenizers

REFERENCE = pre_tokenizers.UnicodeScripts()
SCALARS = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]


def scripts():
    """The script of each scalar, by name."""
    text = "".join(map(chr, SCALARS))
    _, values = _regex_core.PROPERTIES["SCRIPT"]
    names = {}
    for name, number in values.items():
        # Of a short name and a long one the long one.
        names[number] = max(name, names.get(number, ""), key=len)
    result = {}
    for name in sorted(names.values()):
        for match in regex.finditer(rf"\p{{Script={name}}}+", text):
            result.update((ord(character), name) for character in match.group())
    return result


def cuts(text):
    return [end for _, place in REFERENCE.pre_tokenize_str(text) for end in place]


def main():
    script = scripts()
    runs, numbers, first = [], {}, {}
    moved = []

    def is_one(*codes):
        return len(cuts("".join(map(chr, codes)))) == 2

    for code in SCALARS:
        # What the reference knows no script of begins no piece.
        if code == 0x20 or not cuts(chr(code)):
            continue
        name = script[code]
        if name not in first or not is_one(first[name], code):
            # Kana is Han here, and a few scalars have another script since.
            known = next((name for name, other in first.items() if is_one(other, code)), name)
            if known != name and name not in ("HIRAGANA", "KATAKANA"):
                moved.append(code)
            name = known
        first.setdefault(name, code)
        number = numbers.setdefault(name, len(numbers))
        if not runs or runs[-1][1] != number:
            runs.append((code, number))
    print("another script since Unicode 9:", [f"{code:X}" for code in moved])

    def rows(items, width=116):
        lines, line = [], ""
        for item in items:
            if len(line) + len(item) + 2 > width - 8:
                lines.append(line.rstrip())
                line = ""
            line += item + ", "
        return "\n".join("        " + line.rstrip() for line in [*lines, line])

    table = f"""/// Scripts of Unicode 9, written by `make_script_fixtures.py`; hiragana, katakana and the sign for their long vowels count as
/// Han, which is what SentencePiece does.
enum ScriptTable {{
    /// Where a run of scalars of one script begins; runs go over what Unicode 9 doesn't know.
    static let starts: [UInt32] = [
{rows(f"0x{code:X}" for code, _ in runs)}
    ]

    /// A number for each run's script: {", ".join(f"{number} {name.capitalize()}" for name, number in list(numbers.items())[:3])} …
    static let scripts: [UInt8] = [
{rows(str(number) for _, number in runs)}
    ]
}}
"""
    (PACKAGE / "Sources/Tokenizers/Text/ScriptTable.swift").write_text(table)
    print(len(runs), "runs of", len(numbers), "scripts")
    blocks = []
    for block in range(0, 0x110000, 0x2000):
        text = "".join(f"a{chr(code)}b漢{chr(code)} {chr(code)}" for code in range(block, block + 0x2000) if not 0xD800 <= code < 0xE000)
        blocks.append(digest(cuts(text)))
    lines = ["", " ", "hello", "  hello 世界 ", "Apples are りんごー 林檎", "a1,b—c", "Русский English 한국어", "ー", "x\u0301y", "👩\u200d👧 ok", "\ue000a\ue000é"]
    write("scripts.json", {"blocks": blocks, "lines": lines, "cuts": [cuts(line) for line in lines]})


if __name__ == "__main__":
    main()
