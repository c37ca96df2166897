#!/usr/bin/env python3
"""Builds tiny-t5's vocabulary: 8,104 pieces with a token for line breaks.

    python3 vocabulary.py TEXTS OUT

Frequent words are single pieces, which a small model copies more easily than fragments, and punctuation is never part of a
word's piece, so that a word always has the same piece. Other words consist of fragments.
"""

import collections
import itertools
import math
import re
import sys
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from texts import Dialogues, paragraphs

SIZE = 8104
SENTINELS = 100
FRAGMENTS = 1600
FRAGMENT_PENALTY = 8.0  # nats; a word that is a piece is never split into fragments
WORD = re.compile(r"▁?#Person[0-9]#|▁?[A-Za-z]+|'[a-z]+|▁?[0-9]+|▁?[^▁]")


def fragments(rare, size):
    """Fragments for words too rare for their own piece, by byte-pair encoding."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s"), "removed")
    alphabet = [chr(code) for code in range(33, 127)] + ["▁"]
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=alphabet, limit_alphabet=len(alphabet) + 60, show_progress=False
    )
    tokenizer.train_from_iterator((" ".join([word] * min(count, 20)) for word, count in rare.items()), trainer)
    used = collections.Counter()
    for word, count in rare.items():
        for token in tokenizer.encode(word).tokens:
            used[token] += count
    return {piece: used[piece] + 1 for piece in tokenizer.get_vocab()}


def make(counts):
    """`counts`: the frequency of each word, with spaces as ▁."""
    words = SIZE - SENTINELS - 4 - FRAGMENTS  # 4: padding, end, unknown, line break
    ranked = [word for word, _ in counts.most_common()]
    frequent = ranked[:words]
    rare = {word: counts[word] for word in ranked[words:]}
    parts = fragments(rare, FRAGMENTS)
    total = sum(counts.values())
    scores = {piece: math.log(count / total) - FRAGMENT_PENALTY for piece, count in parts.items()}
    scores |= {word: math.log(counts[word] / total) for word in frequent}
    for word in ranked[words:]:  # pieces that are both fragments and words leave room for more words
        if len(scores) >= SIZE - SENTINELS - 4:
            break
        scores.setdefault(word, math.log(counts[word] / total))
    pieces = sorted(scores.items(), key=lambda entry: (-entry[1], entry[0]))
    tokenizer = Tokenizer(models.Unigram([("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *pieces], unk_id=2))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"] + [f"<extra_id_{i}>" for i in range(SENTINELS)])
    tokenizer.add_tokens([AddedToken("\n", normalized=False)])
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)])
    assert tokenizer.get_vocab_size() == SIZE, tokenizer.get_vocab_size()
    return tokenizer


def main(folder, out):
    sources = paragraphs(folder)
    talk = []
    for turns, scene, _ in itertools.islice(Dialogues(seed=1), 12000):
        talk += [f"{scene.people[role].label}: {line}" for role, line in turns]
    print(len(talk), "lines of dialogues")
    counts = collections.Counter()
    weighted = ((sources["books"], 1), (sources["wiki"][::2], 1), (sources["stories"], 3), (talk, 2))
    for texts, weight in weighted:
        for text in texts:
            for word in WORD.findall("▁" + text.replace(" ", "▁")):
                counts[word] += weight
    for name in Path(__file__).with_name("names.txt").read_text().split():
        counts["▁" + name] += 40
    Path(out).mkdir(parents=True, exist_ok=True)
    make(counts).save(f"{out}/tokenizer.json")


if __name__ == "__main__":
    main(*sys.argv[1:])
