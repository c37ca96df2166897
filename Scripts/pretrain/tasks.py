"""The tasks that tiny-t5 is pretrained on, as (source, target) texts.

All of them require the source: the target occurs there in another position, order or grammatical person. None of them is the
demo's task: no summary, and no template of a summary, occurs.
"""

import random
import re
import string

import texts  # noqa: F401  (puts the grammar on the path)

from grammar import slots_of

# Questions about a dialogue, by the slot of its grammar that holds the answer; {A} and {B} are the speakers.
QUESTIONS = {
    "day": "Which day?",
    "day2": "Which other day?",
    "clock": "What time?",
    "price": "How much?",
    "price2": "How much instead?",
    "fee": "What is the fee?",
    "wage": "What is the wage?",
    "percent": "What discount?",
    "mins": "How many minutes?",
    "count": "How many?",
    "span": "How long?",
    "span2": "For how long?",
    "since": "Since when?",
    "stops": "How many stops?",
    "busline": "Which bus?",
    "friend": "Who else is named?",
    "meet": "Where do they meet?",
    "where": "Where was it?",
    "why": "Why not?",
    "cause": "Why is it needed?",
    "busy": "Why not?",
    "deny": "What speaks against it?",
    "doubt": "What is the doubt?",
    "no": "Why not that?",
    "trouble": "What is the trouble?",
    "fault": "What is wrong?",
    "excuse": "What is the excuse?",
    "blame": "Whose fault is it?",
    "perk": "What is good about it?",
    "act": "What could they do?",
    "alt": "What could they do instead?",
    "favor": "What is the favor?",
    "ask": "What does {A} ask for?",
    "less": "What does {B} offer?",
    "errand": "What does {A} want to do?",
    "cond": "What is the condition?",
    "problem": "What is the problem?",
    "symptom": "What is the problem?",
    "tip": "What is the advice?",
    "tip2": "What is the other advice?",
    "treat": "What must {A} do?",
    "diagnosis": "What is it?",
    "test": "Which test?",
    "item": "Which thing?",
    "item2": "Which other thing?",
    "thing": "What is booked?",
    "thing2": "What else is there?",
    "extra": "What extra?",
    "feature": "How should it be?",
    "look": "What does it look like?",
    "proof": "What has to be shown?",
    "paper": "What has to be shown?",
    "who": "Who is it for?",
    "event": "Which event?",
    "task": "Which task?",
    "task2": "Which other task?",
    "goal": "How to do what?",
    "step": "What comes first?",
    "step2": "What comes next?",
    "dest": "Which place?",
    "dest2": "Which other place?",
    "route": "Which way?",
    "route2": "Which way then?",
    "landmark": "Next to what?",
    "job": "Which job?",
    "exp": "Which experience?",
    "need": "Who is needed?",
    "good": "What is the good news?",
    "bad": "What is the bad news?",
    "next": "What comes next?",
    "offer": "What is the offer?",
    "recover": "What should {A} do?",
    "question": "What do they decide?",
    "x": "Which option?",
    "y": "Which other option?",
    "xpro": "What speaks for it?",
    "ypro": "What speaks for the other?",
    "xcon": "What speaks against it?",
    "ycon": "What speaks against the other?",
    "home": "Which home?",
    "rule": "What is the rule?",
    "plus": "What does it have?",
    "minus": "What is missing?",
    "easy": "What is easier?",
    "soon": "When?",
    "smallname": "Who is mentioned?",
}
FUNCTION_WORDS = set(
    """about after again also another anybody anything because been before being both could does doesn done each every everybody
    first from have here instead into just last later least less many more most much must name need nobody none nothing only
    other over please really should some somebody something than thank thanks that their them then there they this those though
    time very want wants well were what when where which while will with would your yours yourself today tomorrow next needs asks
    says tell tells help because since agree minutes dollars percent hour hours days week weeks month months year years""".split()
)


FUNCTION_WORDS |= set(re.findall("[a-z]+", " ".join(QUESTIONS.values()).lower()))


class Tasks:
    def __init__(self, paragraphs, dialogues, words, names, seed):
        """`words`: words that are one piece of the vocabulary, for word lists and replacements."""
        self.rng = random.Random(seed)
        self.paragraphs = [text for source in paragraphs.values() for text in source]
        self.stories = paragraphs["stories"]
        self.dialogues = iter(dialogues)
        self.recent = []
        self.words = words
        self.names = names
        self.weights = {}

    # Sampling

    def dialogue(self):
        """A new dialogue, or a recent one again, as sampling is slower than training."""
        if len(self.recent) > 3000:
            self.recent = self.recent[1000:]
        if len(self.recent) < 500 or self.rng.random() < 0.5:
            turns, scene, script = next(self.dialogues)
            self.recent.append((turns, scene, script))
        return self.rng.choice(self.recent) if len(self.recent) > 400 else self.recent[-1]

    def part(self, fewest=1):
        """Consecutive lines of a dialogue: (turns, scene, script). Half of the time only a few, which train faster.

        A speaker who is named only in the other lines has no name.
        """
        turns, scene, script = self.dialogue()
        for person in scene.people.values():
            if not hasattr(person, "whole_name"):
                person.whole_name = person.name
            person.name = person.whole_name
        if self.rng.random() < 0.7 and len(turns) > 2:
            count = self.rng.randrange(fewest, 4)
            start = self.rng.randrange(len(turns) - count + 1)
            turns = turns[start : start + count]
        text = " ".join(line for _, line in turns)
        for person in scene.people.values():
            if person.name and not re.search(rf"\b{person.name}\b", text):
                person.name = None
        return turns, scene, script

    def spoken(self, turns, scene, script):
        """The slots with a question whose values occur in these lines, with the speaker."""
        text = " ".join(line for _, line in turns).lower()
        found = {}
        for role, template in script:
            for slot in slots_of(template):
                if slot in QUESTIONS and slot not in found and scene._value(slot, None, role).lower() in text:
                    found[slot] = role
        return found

    def lines(self, turns, scene):
        return [f"{scene.people[role].label}: {text}" for role, text in turns]

    def sentences(self, most):
        """Some consecutive sentences of a text, with a maximum number of words."""
        while True:
            text = self.rng.choice(self.stories if self.rng.random() < 0.5 else self.paragraphs)
            parts = re.split(r"(?<=[.?!;]) ", text)
            start = self.rng.randrange(len(parts))
            chosen, count = [], 0
            for part in parts[start:]:
                count += len(part.split())
                if count > most:
                    break
                chosen.append(part)
            if chosen and count > 4:
                return chosen

    def replaced(self, source, target, share):
        """Both texts with some words replaced consistently, so that copied words can't be guessed."""
        rng = self.rng
        replacement = {}
        for word in sorted(set(re.findall(r"\b[A-Za-z]+\b", source))):
            if word in FUNCTION_WORDS or len(word) < 4 or word == "Person" or rng.random() > share:
                continue
            if word in self.names:
                replacement[word] = rng.choice(self.name_list)
            elif word.islower():
                replacement[word] = rng.choice(self.words)
        if not replacement:
            return source, target
        swap = lambda text: re.sub(r"\b[A-Za-z]+\b", lambda match: replacement.get(match[0], match[0]), text)
        return swap(source), swap(target)

    @property
    def name_list(self):
        if not hasattr(self, "_name_list"):
            self._name_list = sorted(self.names)
        return self._name_list

    # Lists of words

    def random_words(self, count):
        pick = lambda: self.rng.choice(self.name_list if self.rng.random() < 0.15 else self.words)
        return [pick() for _ in range(count)]

    def copy_words(self):
        text = " ".join(self.random_words(self.rng.randrange(3, 16)))
        return "Copy: " + text, text

    def find_words(self):
        """The words that follow two words of a list."""
        rows = [self.random_words(self.rng.randrange(3, 8)) for _ in range(self.rng.randrange(1, 4))]
        row = self.rng.choice(rows)
        start = self.rng.randrange(len(row) - 1)
        text = "\n".join(" ".join(row) for row in rows)
        return f"Continue {row[start]}: {text}", " ".join(row[start + 1 :])

    def pairs(self):
        """Several lookups of a value by its key."""
        keys = self.random_words(self.rng.randrange(2, 7))
        rows = {key: " ".join(self.random_words(self.rng.randrange(1, 4))) for key in keys}
        asked = self.rng.sample(sorted(rows), self.rng.randrange(1, len(rows) + 1))
        text = "\n".join(f"{key}: {value}" for key, value in rows.items())
        return "Look up " + ", ".join(asked) + ": " + text, " | ".join(rows[key] for key in asked)

    # Text

    def spans(self, text=None):
        """Span corruption."""
        words = (text or " ".join(self.sentences(45))).replace("\n", " \n ").split(" ")
        source, target, index, position = [], [], 0, 0
        while position < len(words):
            if self.rng.random() < 0.09 and words[position] != "\n" and index < 99:
                length = self.rng.choice((1, 1, 2, 3, 4))
                source.append(f"<extra_id_{index}>")
                target += [f"<extra_id_{index}>"] + words[position : position + length]
                index, position = index + 1, position + length
            else:
                source.append(words[position])
                position += 1
        if not target:
            return self.spans(text)
        join = lambda parts: " ".join(parts).replace(" \n ", "\n").replace(" \n", "\n").replace("\n ", "\n")
        return join(source), join(target)

    def denoise(self, pieces=None):
        """The text in order, from one with shuffled sentences and deleted words."""
        pieces = pieces or self.sentences(24)
        shuffled = pieces[:]
        self.rng.shuffle(shuffled)
        noisy = [
            " ".join(word for word in piece.split(" ") if self.rng.random() > 0.08 or word.startswith("#")) for piece in shuffled
        ]
        return "Repair: " + "\n".join(noisy), " ".join(pieces)

    def continue_sentence(self):
        """A sentence of the text, given its first words."""
        pieces = self.sentences(45)
        piece = self.rng.choice(pieces).split(" ")
        if len(piece) < 4:
            return self.continue_sentence()
        cut = self.rng.randrange(1, min(4, len(piece) - 1))
        return self.replaced(f"Continue {' '.join(piece[:cut])}: {' '.join(pieces)}", " ".join(piece[cut:]), 0.15)

    # Dialogues

    def answers(self):
        """Questions about a dialogue, answered in the third person."""
        turns, scene, script = self.part()
        spoken = sorted(self.spoken(turns, scene, script))
        if not spoken:
            return self.who()
        asked = self.rng.sample(spoken, min(len(spoken), self.rng.randrange(1, 5)))
        answers = []
        for slot in asked:
            scene.mentioned = []
            answers.append(scene._value(slot, None, None))
        people = {role: person.shown for role, person in scene.people.items()}
        ask = " ".join(QUESTIONS[slot].format(**people) for slot in asked)
        share = 0.0 if self.rng.random() < 0.4 else 0.35
        return self.replaced(f"{ask}\n" + "\n".join(self.lines(turns, scene)), " | ".join(answers), share)

    def who(self):
        """The speaker of a line, by name if the dialogue mentions it; and the names themselves."""
        turns, scene, _ = self.part()
        shown = lambda role: scene.people[role].shown
        label = lambda role: scene.people[role].label
        asked, answers = [], []
        if self.rng.random() < 0.5:
            for role in self.rng.sample("AB", self.rng.randrange(1, 3)):
                asked.append(f"Who is {label(role)}?")
                answers.append(shown(role))
        for role, text in self.rng.sample(turns, min(len(turns), self.rng.randrange(1, 3))):
            words = text.split(" ")
            length = self.rng.randrange(2, 6)
            start = self.rng.randrange(max(1, len(words) - length + 1))
            asked.append("Who says " + " ".join(words[start : start + length]).strip(string.punctuation) + "?")
            answers.append(shown(role))
        text = "\n".join(self.lines(turns, scene))
        return self.replaced(f"{' '.join(asked)}\n{text}", " | ".join(answers), 0.15)

    def next_line(self):
        """The rest of a line given its beginning, or the line after a given one."""
        turns, scene, _ = self.part(2)
        lines = self.lines(turns, scene)
        text = "\n".join(lines)
        if self.rng.random() < 0.5:
            index = self.rng.randrange(len(lines) - 1)
            source, target = f"What comes after {turns[index][1]}\n{text}", lines[index + 1]
        else:
            role, line = self.rng.choice(turns)
            words = line.split(" ")
            if len(words) < 4:
                return self.next_line()
            start = self.rng.randrange(len(words) - 3)
            cut = self.rng.randrange(start + 1, min(start + 4, len(words) - 1))
            source, target = f"Continue {' '.join(words[start:cut])}\n{text}", " ".join(words[cut:])
        return self.replaced(source, target, 0.2)

    def missing_line(self):
        """A line removed from a dialogue, largely predictable from its neighbors."""
        turns, scene, _ = self.part(2)
        lines = self.lines(turns, scene)
        index = self.rng.randrange(len(lines))
        source = lines[:index] + ["<extra_id_0>"] + lines[index + 1 :]
        return self.replaced("\n".join(source), lines[index], 0.1)

    def dialogue_spans(self):
        turns, scene, _ = self.part()
        text, _ = self.replaced("\n".join(self.lines(turns, scene)), "", 0.1)
        return self.spans(text)

    def details(self):
        """Names, days, times and numbers in the order of the dialogue."""
        turns, scene, _ = self.part()
        text = "\n".join(self.lines(turns, scene))
        text, _ = self.replaced(text, "", 0.3)
        found = re.findall(r"(?<![.?!:] )\b(?:(?:next|this) )?(?!I\b)[A-Z][a-z]+\b|\b\d+\b|half past \w+|#Person\d#(?!:)", text)
        found = list(dict.fromkeys(found))
        if not found:
            return self.next_line()
        return "Details: " + text, ", ".join(found)

    def report(self):
        """One statement turned into the third person."""
        turns, scene, script = self.part()
        said = [(role, slot) for slot, role in sorted(self.spoken(turns, scene, script).items())]
        said = [(role, slot) for role, slot in said if len(scene._value(slot, None, role).split()) > 2]
        if not said:
            return self.answers()
        pieces = self.rng.sample(said, min(len(said), self.rng.randrange(1, 4)))
        source, target = [], []
        for role, slot in pieces:
            scene.mentioned = []
            source.append(f"{scene.people[role].label}: {scene._value(slot, None, role)}")
            other = scene._value(slot, None, None)
            names = {person.name: person.label for person in scene.people.values() if person.name}
            for name, label in names.items():
                other = re.sub(rf"\b{name}\b", label, other)
            target.append(other)
        return self.replaced("Report: " + "\n".join(source), "\n".join(target), 0.3)

    def draw(self):
        names = list(self.weights)
        (name,) = self.rng.choices(names, weights=[self.weights[n] for n in names])
        source, target = getattr(self, name)()
        return name, source, target


# Sampling weights of the tasks: first short ones that teach copying, then those on texts and dialogues.
STAGES = {
    "copy": {"copy_words": 3, "find_words": 3, "pairs": 3, "report": 3, "next_line": 2, "answers": 3, "who": 1},
    "read": {
        "copy_words": 0.2, "find_words": 0.3, "pairs": 0.4, "spans": 0.4, "denoise": 0.3, "continue_sentence": 0.4, "answers": 5,
        "who": 1.2, "next_line": 1.2, "missing_line": 0.7, "dialogue_spans": 0.6, "details": 0.8, "report": 1.5,
    },
}  # fmt: skip
