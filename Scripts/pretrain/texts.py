"""The text that tiny-t5 is pretrained on: general English and dialogues of the project's own grammar."""

import json
import random
import re
import sys
from pathlib import Path

DIALOGUES = Path(__file__).resolve().parents[2] / "Examples" / "dialogues"
sys.path.insert(0, str(DIALOGUES))

import generate  # noqa: E402
from topics import HELD_OUT_TOPICS, NAMES, TOPICS  # noqa: E402

SKIPPED_BOOKS = ("bible", "leaves", "paradise", "shakespeare", "blake")  # verse and old spelling


def paragraphs(folder):
    """WikiText-2, Gutenberg's novels and TinyStories as lists of one-line paragraphs, by source."""
    folder = Path(folder)
    wiki = (folder / "wikitext-2/train.txt").read_text()
    wiki = re.sub(r" @([-,.])@ ", r"\1", wiki).replace("<unk>", "")
    wiki = re.sub(r"([(\[]) ", r"\1", re.sub(r" ([.,;:!?)\]'])", r"\1", wiki))
    wiki = re.sub(r"[ \t]+", " ", re.sub(r" 's\b", "'s", wiki))
    books = []
    for path in sorted((folder / "gutenberg").glob("*.txt")):
        if path.stem != "SOURCE" and not any(name in path.stem for name in SKIPPED_BOOKS):
            books += path.read_text(errors="ignore").split("\n\n")
    stories = (folder / "tinystories-text/tinystories_2MiB.txt").read_text(errors="ignore").split("<|endoftext|>")
    clean = lambda texts: [" ".join(text.split()) for text in texts if len(text.strip()) > 60]
    return {"wiki": clean(wiki.split("\n")), "books": clean(books), "stories": clean(stories)}


class Recorder(generate.Generator):
    """Samples dialogues as the dataset does and records the components of each.

    Names are from the training split and a list of others, never from the validation or the test split.
    """

    def __init__(self, rng):
        super().__init__("train", rng)
        held_out = {name.strip() for split in ("validation", "test") for group in NAMES[split].values() for name in group.split(";")}
        extra = [name for name in Path(__file__).with_name("names.txt").read_text().split() if name not in held_out]
        self.names += [(name, rng.choice("fm")) for name in extra]
        self._turns = self._record

    def _record(self, script, scene):
        turns = generate.Generator._turns(script, scene)
        self.scene, self.script, self.turns = scene, script, turns
        return turns


class Dialogues:
    """Samples dialogues of the training topics, excluding those of validation and test examples.

    A dialogue is excluded if the validation or test set has its text, or the same topic, plot and values.
    """

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.recorder = Recorder(self.rng)
        self.topics = [topic for topic in TOPICS if topic not in HELD_OUT_TOPICS]
        splits = generate.generate()
        held_out = splits["validation"] + splits["test"]
        self.texts = {example.dialogue for example in held_out}
        self.signatures = {example.signature for example in held_out}

    def __iter__(self):
        """(turns, scene, script): turns are (role, line); see Examples/dialogues/generate.py. Summaries are dropped."""
        while True:
            example = self.recorder.example(self.rng.choice(self.topics))
            if example.dialogue not in self.texts and example.signature not in self.signatures:
                yield self.recorder.turns, self.recorder.scene, self.recorder.script


def held_out_dialogues(split):
    return [json.loads(line) for line in (DIALOGUES / f"{split}.jsonl").read_text().splitlines()]
