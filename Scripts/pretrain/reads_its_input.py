#!/usr/bin/env python3
"""Measures whether an encoder-decoder model reads its input: the loss with the right input and with another example's.

    python3 reads_its_input.py MODEL [EXAMPLES.jsonl] [--count 100] [--source '{dialogue}'] [--target '{summary}']

A model that ignores its encoder has the same loss with both. Two targets are measured on the test dialogues: the longest line
of the dialogue, which occurs in the source, and the target of the examples (a summary), which a model cannot write before
fine-tuning. Losses are nats per token.
"""

import argparse
import json
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import T5ForConditionalGeneration

TEST = Path(__file__).resolve().parents[2] / "Examples" / "dialogues" / "test.jsonl"


@torch.no_grad()
def loss(model, sources, targets):
    """Mean loss per target token, one example at a time."""
    total = count = 0
    for source, target in zip(sources, targets):
        labels = torch.tensor([target])
        total += model(input_ids=torch.tensor([source]), labels=labels).loss.item() * len(target)
        count += len(target)
    return total / count


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("examples", nargs="?", default=TEST)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--source", default="{dialogue}")
    parser.add_argument("--target", default="{summary}")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = Tokenizer.from_file(f"{options.model}/tokenizer.json")
    model = T5ForConditionalGeneration.from_pretrained(options.model, dtype=torch.float32).eval()
    rows = [json.loads(line) for line in Path(options.examples).read_text().splitlines()[: options.count]]
    sources = [tokenizer.encode(options.source.format(**row)).ids for row in rows]
    others = sources[1:] + sources[:1]
    lines = [max(options.source.format(**row).split("\n"), key=len) for row in rows]
    for name, texts in (("longest line", lines), ("target", [options.target.format(**row) for row in rows])):
        targets = [tokenizer.encode(text).ids for text in texts]
        right, wrong = loss(model, sources, targets), loss(model, others, targets)
        print(f"{name:14} right input {right:.3f}   another example's input {wrong:.3f}   difference {wrong - right:+.3f}")


if __name__ == "__main__":
    main()
