"""Writes the fixture offsets.json beside this script: where Python's tokenizers says that tokens lie in their text.

    python make_offset_fixtures.py [--shared FOLDER] [--minilm FOLDER]

needs tokenizers. The small tokenizers are those of the other fixtures, with their texts: of each only a digest of all
offsets is kept. Of real tokenizers, which are looked for as in make_subword_fixtures.py, the offsets of some lines.
"""

import argparse
import json
import pathlib

from make_fixtures import HERE, PACKAGE, digest, write
from make_subword_fixtures import llama2
from tokenizers import Tokenizer

LINES = [
    "", "hello world", "  Hello   WORLD \n", "naïve ÀÉ — e\u0301te\u0301 he\u0301llo", "漢字kana かな 한국어 a漢b", "ｶﾞｷﾞ ﬁne ①½ ㌀ ㍍",
    "👩\u200d👧 ok 😀😁!", "x\u0301\u0323y \u0323\u0301z q\u0307\u0323", "#Person1#: I've 12345 do not's, right?", "\u200bz\u200d \ufffd\x01w",
    "Ĳssel ẞtraße İstanbul ﷺ", "tab\tnew\nline\r\nend \u00a0\u2003x", "각 각 \u1100\u1161\u11a8", "</s> <s>hi</s> <unk> <pad> [SEP] <mask> <|endoftext|>x",
    "▁a ▁▁b", "Ωmega \u2126hm ǅ Å Å", "שָׁלוֹם नमस्ते ไทย", "don't stop... $5.00+3=8 a,b;c--d__e", "averyveryverylongwordwithoutanyspaces" * 3,
]  # fmt: skip
SMALL = ["stages", "rare-stages", "subword-models", "subword-stages"]


def flat(encoding):
    return [place for offsets in encoding.offsets for place in offsets]


def small(name):
    fixture = json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))
    for case in fixture["cases"]:
        content = case["tokenizer"] if case["tokenizer"].get("model") else {**case["tokenizer"], "model": fixture["model"]}
        tokenizer = Tokenizer.from_str(json.dumps(content))
        yield case["name"], digest([place for text in fixture["texts"] for place in flat(tokenizer.encode(text))])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--shared", type=pathlib.Path, default=PACKAGE.parent / "shared/data")
    parser.add_argument("--minilm", type=pathlib.Path)
    arguments = parser.parse_args()
    folders = {
        "t5": arguments.shared / "t5-tokenizer", "gpt2": arguments.shared / "gpt2-tokenizer", "roberta": arguments.shared / "roberta-tokenizer",
        "llama2": arguments.shared / "llama2-tokenizer", "tinystories": arguments.shared / "tinystories-656k-hf", "tiny-t5": PACKAGE / "Models/tiny-t5",
    }  # fmt: skip
    if arguments.minilm:
        folders["minilm"] = arguments.minilm
    real = {}
    for name, folder in folders.items():
        tokenizer = llama2(folder) if name == "llama2" else Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        pair = tokenizer.encode(LINES[3], LINES[6])
        real[name] = {"offsets": [flat(tokenizer.encode(line)) for line in LINES], "pair": flat(pair)}
    write("offsets.json", {"lines": LINES, "real": real, "small": {name: dict(small(name)) for name in SMALL}})


main()
