#!/usr/bin/env python3
"""ROUGE on the test set of summaries that need no model (needs the package rouge-score).

lead-1 repeats the first line of the dialogue, longest line its longest one, constant is the training summary that
fits 200 training dialogues best, and topic the one that fits best among the summaries of the topic (for
a held-out topic: the constant). oracle is, for every test dialogue, the training summary closest to the true
summary: what nobody can reach by copying from the training set.
"""

import json
from pathlib import Path

from rouge_score import rouge_scorer, tokenize


def load(split):
    return [json.loads(line) for line in Path(__file__).with_name(f"{split}.jsonl").read_text().splitlines()]


def overlap(first, second):
    """ROUGE-1 F without stemming, on sets of words: fast enough to search."""
    return 2 * len(first & second) / (len(first) + len(second))


def central(summaries, others):
    """The summary that is on average closest to the others."""
    return max(summaries, key=lambda summary: sum(overlap(words(summary), words(other)) for other in others))


def words(text, cache={}):
    if text not in cache:
        cache[text] = frozenset(tokenize.tokenize(text, None))
    return cache[text]


def without_label(line):
    return line.split(": ", 1)[1]


def main():
    train, test = load("train"), load("test")
    by_topic = {}
    for row in train:
        by_topic.setdefault(row["topic"], []).append(row["summary"])
    known = [row["summary"] for row in train]
    constant = central(known[:200], known[:200])
    of_topic = {topic: central(summaries, summaries) for topic, summaries in by_topic.items()}

    baselines = {
        "lead-1": lambda row: without_label(row["dialogue"].split("\n")[0]),
        "longest line": lambda row: max(map(without_label, row["dialogue"].split("\n")), key=len),
        "constant": lambda row: constant,
        "topic": lambda row: of_topic.get(row["topic"], constant),
        "oracle": lambda row: max(known, key=lambda summary: overlap(words(summary), words(row["summary"]))),
    }
    print(f"constant: {constant}")
    kinds = ["rouge1", "rouge2", "rougeL"]
    scorer = rouge_scorer.RougeScorer(kinds, use_stemmer=True)
    for name, summarize in baselines.items():
        scores = [scorer.score(row["summary"], summarize(row)) for row in test]
        means = [100 * sum(score[kind].fmeasure for score in scores) / len(scores) for kind in kinds]
        print(f"{name:14}" + "  ".join(f"{kind} {mean:5.2f}" for kind, mean in zip(kinds, means)))


if __name__ == "__main__":
    main()
