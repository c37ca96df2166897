#!/usr/bin/env python3
"""Writes the dialogue dataset: train.jsonl, validation.jsonl and test.jsonl.

    python3 generate.py                the committed files
    python3 generate.py --check        generates and compares with the files, writes nothing

The output depends only on the grammar (grammar.py, frames.py, topics.py) and the seed.
"""

import argparse
import json
import random
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from facts import LABELS, key_facts
from frames import CLOSINGS, FRAMES, OPENINGS, PHRASES, SMALL_TALK
from grammar import Person, Scene, choose, slots_of
from topics import COMMON, HELD_OUT_TOPICS, NAMES, PRICES, TOPICS

SEED = 2024
SIZES = {"train": 1800, "validation": 120, "test": 200}
HELD_OUT_SHARE = 0.3  # fraction of the validation and the test set
TURNS = range(4, 13)
SUMMARY_WORDS = range(10, 26)
MAX_WORDS = 52  # of a dialogue, to keep the training short
NAME_SLOTS = {"friend", "friend2", "smallname", "smallday"}
DERIVED = {"day2", "span2", "dest2", "price", "price2", "fee", "wage", "wage2", "friend", "friend2", "smallname"}
OPTIONS = "x>xpro>xcon"  # a slot with options, two of which occur in a scene
OPENED = 0.7  # fraction of dialogues with an opening
OPTIONAL = 0.1  # fraction of optional exchanges that are included
SUMMARY_WEIGHTS = (3, 1, 1)  # the first summary of a plot is the most frequent
CLOSED = 0.1  # fraction of dialogues with a closing
INTRODUCED = 0.7  # fraction of speakers with a name (which not every dialogue mentions)


def values(text):
    return [" ".join(value.split()) for value in text.split(";")]


def known_slots(fillers):
    """The slots that have a value in a scene with these fillers."""
    known = set(COMMON) | DERIVED
    for slot in fillers:
        known |= {"x", "xpro", "xcon", "y", "ypro", "ycon"} if slot == OPTIONS else set(slot.split(">"))
    return known


@dataclass
class Example:
    topic: str
    dialogue: str
    summary: str
    facts: str
    signature: tuple
    names: set

    def row(self, identifier):
        return {
            "id": identifier,
            "topic": self.topic,
            "held_out_topic": self.topic in HELD_OUT_TOPICS,
            "dialogue": self.dialogue,
            "summary": self.summary,
            "facts": self.facts,
        }


# The plots of a topic: those of its frames for which it has all slots.
PLOTS = {
    topic: [
        (name, plot)
        for name, fillers in frames.items()
        for plot in FRAMES[name].plots
        if plot.slots() <= known_slots(fillers) and plot.name not in values(fillers.get("without", ""))
    ]
    for topic, frames in TOPICS.items()
}


class Generator:
    """Samples examples with the names of one split."""

    def __init__(self, split, rng):
        self.rng = rng
        self.names = [(name, gender) for gender in "fm" for name in values(NAMES[split][gender])]

    def example(self, topic):
        """An example that fits the limits."""
        while True:
            example = self._draw(topic)
            if example:
                return example

    def _draw(self, topic):
        rng = self.rng
        name, plot = rng.choice(PLOTS[topic])
        frame = FRAMES[name]
        people, slot_values, mentioned = self._cast(topic, TOPICS[topic][name])

        script = self._script(frame, plot, people)
        (template,) = rng.choices(plot.summaries, weights=SUMMARY_WEIGHTS[: len(plot.summaries)])
        summary = choose(template, rng, PHRASES)
        spoken = set().union(*(slots_of(text) for _, text in script))
        if not slots_of(summary) - {"A", "B"} <= spoken:
            return None  # a summary may only mention what the dialogue contains

        scene = Scene(people, slot_values, frame.owners)
        turns = self._turns(script, scene)
        dialogue = "\n".join(f"{people[role].label}: {text}" for role, text in turns)
        for person in people.values():
            if person.name and not re.search(rf"\b{person.name}\b", dialogue):
                person.name = None
        text = scene.fill(summary)
        text = text if text.endswith(".") else text + "."

        fits = len(turns) in TURNS and len(text.split()) in SUMMARY_WORDS and len(dialogue.split()) <= MAX_WORDS
        if not fits:
            return None
        told = sorted(set().union(*(slots_of(line) for line in plot.summaries)) & set(slot_values) - NAME_SLOTS)
        signature = (topic, name, plot.name, *((slot, slot_values[slot]) for slot in told))
        facts = key_facts(script, scene, plot.summaries)
        return Example(topic, dialogue, text, facts, signature, {n for n in mentioned if re.search(rf"\b{n}\b", dialogue)})

    def _cast(self, topic, fillers):
        """The two people, and a value for every slot of the topic."""
        rng = self.rng
        first, second, friend, friend2, other = rng.sample(self.names, 5)
        people = {}
        for role, (name, gender) in zip("AB", (first, second)):
            people[role] = Person("", name if rng.random() < INTRODUCED else None, gender)

        chosen = {slot: rng.choice(values(text)) for slot, text in COMMON.items()}
        for slot, text in fillers.items():
            if slot == "without":
                continue
            if slot == OPTIONS:
                for prefix, option in zip("xy", rng.sample(values(text), 2)):
                    chosen.update(zip((prefix, prefix + "pro", prefix + "con"), option.split(" > ")))
            elif ">" in slot:
                chosen.update(zip(slot.split(">"), rng.choice(values(text)).split(" > ")))
            else:
                chosen[slot] = rng.choice(values(text))
        for slot in ("day", "span", "dest"):
            candidates = values(fillers.get(slot) or COMMON.get(slot, ""))
            others = [value for value in candidates if slot in chosen and value.split()[-1] != chosen[slot].split()[-1]]
            if others:  # nor the same weekday
                chosen[slot + "2"] = rng.choice(others)
        price = rng.randrange(*PRICES.get(topic, PRICES[None]), 5)
        chosen |= {
            "price": str(price),
            "price2": str(price - max(5, price // rng.randrange(20, 60) * 5)),
            "fee": str(rng.randrange(3, 40)),
            "wage": str(wage := rng.randrange(9, 30)),
            "wage2": str(wage + rng.randrange(2, 8)),
            "friend": friend[0],
            "friend2": friend2[0],
            "smallname": other[0],
        }
        return people, chosen, {name for name, _ in (first, second, friend, friend2, other)}

    def _script(self, frame, plot, people):
        """The lines, as (role, template without alternatives)."""
        rng = self.rng
        script = []
        if rng.random() < OPENED:
            script += self._exchange(self._greeting(OPENINGS[frame.register], people))
        small_talk = rng.choice(SMALL_TALK[frame.register])
        place = rng.choice(["start", "end", "nowhere", "nowhere"])
        if place == "start" and script:
            script += self._exchange(small_talk)
        for exchange in plot.exchanges:
            if not exchange.startswith("?"):
                script += self._exchange(exchange)
            elif rng.random() < OPTIONAL:
                script += self._exchange(exchange[1:])
        if place == "end" and frame.register == "friends":
            script += self._exchange(small_talk)
        if rng.random() < CLOSED:
            script += self._exchange(self._greeting(CLOSINGS[plot.mood], people))
        return script

    def _greeting(self, templates, people):
        """One of the templates whose required names are known."""
        unknown = {role.lower() for role, person in people.items() if not person.name}
        return self.rng.choice([t for t in templates if not {f"{{{role}}}" for role in unknown} & set(re.findall(r"\{\w\}", t))])

    def _exchange(self, template):
        text = choose(template, self.rng, PHRASES)
        return [tuple(part.strip().split(": ", 1)) for part in text.split("//") if part.strip()]

    @staticmethod
    def _turns(script, scene):
        """Joins consecutive lines of a speaker; the first speaker is #Person1#."""
        first = script[0][0]
        for role, person in scene.people.items():
            person.label = "#Person1#" if role == first else "#Person2#"
        turns = []
        for role, template in script:
            line = scene.fill(template, speaker=role)
            line = line if line[-1] in ".?!" else line + "."
            if turns and turns[-1][0] == role:
                turns[-1] = (role, turns[-1][1] + " " + line)
            else:
                turns.append((role, line))
        return turns


def topics_for(split, size, rng):
    """A topic for every example: all equally often, held-out ones only in validation and test."""
    held_out = 0 if split == "train" else round(size * HELD_OUT_SHARE)
    known = [topic for topic in TOPICS if topic not in HELD_OUT_TOPICS]
    chosen = [known[i % len(known)] for i in range(size - held_out)]
    chosen += [sorted(HELD_OUT_TOPICS)[i % len(HELD_OUT_TOPICS)] for i in range(held_out)]
    rng.shuffle(chosen)
    return chosen


def generate():
    """The examples of the three splits."""
    splits, dialogues, summaries, signatures = {}, set(), {}, {}
    for split in ("test", "validation", "train"):
        rng = random.Random(f"{SEED}-{split}")
        generator = Generator(split, rng)
        examples = []
        for topic in topics_for(split, SIZES[split], rng):
            while True:
                example = generator.example(topic)
                elsewhere = signatures.get(example.signature, split) != split
                copied = summaries.get(example.summary, split) != split
                if not (elsewhere or copied or example.dialogue in dialogues):
                    break
            dialogues.add(example.dialogue)
            signatures[example.signature] = split
            summaries[example.summary] = split
            examples.append(example)
        splits[split] = examples
    return {split: splits[split] for split in SIZES}


def verify(splits):
    """The properties that the README states."""
    train, validation, test = (splits[split] for split in SIZES)
    everything = train + validation + test
    assert all(len(splits[split]) == size for split, size in SIZES.items())
    assert len({example.dialogue for example in everything}) == len(everything), "two dialogues are equal"

    for split, others in (("test", train + validation), ("validation", train)):
        here = splits[split]
        for what in ("names", "summary", "signature"):
            get = (lambda e: e.names) if what == "names" else (lambda e, what=what: {getattr(e, what)})
            shared = set().union(*map(get, here)) & set().union(*map(get, others))
            assert not shared, f"{what} of the {split} set occur elsewhere: {sorted(shared)[:3]}"
    words = set(re.findall(r"\w+", " ".join(e.dialogue + " " + e.summary for e in train)))
    for split in ("validation", "test"):
        for name in values(NAMES[split]["f"]) + values(NAMES[split]["m"]):
            assert name not in words, f"{name} occurs in the training set"

    assert not {example.topic for example in train} & HELD_OUT_TOPICS
    assert HELD_OUT_TOPICS <= {example.topic for example in test}
    for example in everything:
        text = example.dialogue + "\n" + example.summary
        assert text.isascii(), text
        assert not re.search(r"[\[\]{}<>@|]|//| [.,?!]|\.\.|,,|  |\bNone\b", text), text
        assert len(example.dialogue.split("\n")) in TURNS
        for fact in example.facts.split(" | "):
            label, _, value = fact.partition(": ")
            assert label in LABELS and value.lower() in example.dialogue.lower(), fact


def statistics(splits):
    def trigrams(texts):
        tokens = [text.lower().split() for text in texts]
        return {tuple(words[i : i + 3]) for words in tokens for i in range(len(words) - 2)}

    for split, examples in splits.items():
        dialogues = [example.dialogue for example in examples]
        summaries = [example.summary for example in examples]
        named = [bool(e.names & set(re.findall(r"\w+", e.summary))) for e in examples]
        figures = {
            "dialogues": len(examples),
            "topics": len({e.topic for e in examples}),
            "plots": len({e.signature[1:3] for e in examples}),
            "names": len({name for e in examples for name in e.names}),
            "combinations of slots": len({e.signature for e in examples}),
            "turns per dialogue": f"{mean(len(dialogue.splitlines()) for dialogue in dialogues):.1f}",
            "words per dialogue": f"{mean(len(dialogue.split()) for dialogue in dialogues):.1f}",
            "words per summary": f"{mean(len(summary.split()) for summary in summaries):.1f}",
            "summaries with a name": f"{mean(named):.0%}",
            "distinct summaries": len(set(summaries)),
            "distinct trigrams, dialogues": len(trigrams(dialogues)),
            "distinct trigrams, summaries": len(trigrams(summaries)),
        }
        print(split)
        for name, figure in figures.items():
            print(f"  {name:30}{figure:>8}")
    known = {example.summary for example in splits["train"]}
    print(f"test summaries that occur in train: {sum(e.summary in known for e in splits['test'])}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the files instead of writing them")
    arguments = parser.parse_args()

    splits = generate()
    verify(splits)
    statistics(splits)
    for split, examples in splits.items():
        rows = [json.dumps(e.row(f"{split}-{i:04}")) for i, e in enumerate(examples, 1)]
        text = "\n".join(rows) + "\n"
        path = Path(__file__).with_name(f"{split}.jsonl")
        if not arguments.check:
            path.write_text(text)
        elif path.read_text() != text:
            sys.exit(f"{path.name} is not what generate.py writes")


if __name__ == "__main__":
    main()
