"""The template language that the dialogues are written in.

    [a|b|c]      one of the alternatives; they nest, and one may be empty
    @name        a phrase of the shared list of phrases, itself a template
    {slot}       the value of a slot of the scene
    {slot.form}  the value in another form: `the`, `bare`, `on`, `ing`
    {A} {B}      the two roles, in a summary; with `.his`, `.him`, `.he` as pronouns
    {a} {b}      the names of the roles, in a dialogue; {,a} {,b} address them if they have one

Values of slots are written in the first person of the role that owns the slot, with the verbs
to be conjugated in angle brackets: "I <have> to visit my aunt". The line's speaker decides what
becomes of them: "I have to visit my aunt" when the owner speaks, "you have to visit your aunt"
when the other role speaks, and "she has to visit her aunt" in the summary.
"""

import re
from dataclasses import dataclass

THIRD_PERSON = {"have": "has", "am": "is", "do": "does", "go": "goes", "don't": "does not", "haven't": "has not"}
SECOND_PERSON = {"am": "are"}
DOUBLED = {"plan", "swim", "run", "get", "put", "sit", "set", "cut", "stop", "shop", "jog", "pet", "drop", "wrap"}
PRONOUNS = {
    "f": {"he": "she", "him": "her", "his": "her"},
    "m": {"he": "he", "him": "him", "his": "his"},
}


@dataclass(eq=False)
class Person:
    """A role's appearance in one dialogue."""

    label: str
    name: str | None = None
    gender: str = "f"

    @property
    def shown(self):
        return self.name or self.label

    def form(self, form, pronoun):
        """`form` is `shown`, or `he`, `him` or `his`, which name the person unless `pronoun` is true."""
        if pronoun and form != "shown":
            return PRONOUNS[self.gender][form]
        return self.shown + ("'s" if form == "his" else "")


INNERMOST = re.compile(r"\[([^\[\]]*)\]")
MACRO = re.compile(r"@(\w+)")
SLOT = re.compile(r"\{(,?)(\w+)(?:\.(\w+))?\}")
VERB = re.compile(r"<([\w']+)>")


def choose(text, rng, phrases):
    """Replaces phrases and alternatives until none is left."""
    while True:
        if match := MACRO.search(text):
            text = text[: match.start()] + "[" + "|".join(phrases[match[1]]) + "]" + text[match.end() :]
        elif match := INNERMOST.search(text):
            text = text[: match.start()] + rng.choice(match[1].split("|")) + text[match.end() :]
        else:
            return text


def slots_of(text):
    """The names of the slots that a template may use."""
    return {match[2] for match in SLOT.finditer(text)}


def phrases_of(text):
    """The names of the phrases that a template uses."""
    return set(MACRO.findall(text))


def third_person(verb):
    if verb in THIRD_PERSON:
        return THIRD_PERSON[verb]
    if re.search(r"(s|sh|ch|x|o)$", verb):
        return verb + "es"
    return verb[:-1] + "ies" if re.search(r"[^aeiou]y$", verb) else verb + "s"


def gerund(phrase):
    verb, _, rest = phrase.partition(" ")
    if verb in DOUBLED:
        verb += verb[-1]
    elif verb.endswith("e") and not verb.endswith("ee") and verb != "be":
        verb = verb[:-1]
    return f"{verb}ing {rest}".rstrip()


def without_article(phrase):
    return re.sub(r"^(an?|the) ", "", phrase)


def with_preposition(day):
    """on Friday, but tomorrow, next Friday, this weekend."""
    return day if day.split()[0] in {"tomorrow", "next", "this", "tonight"} else "on " + day


FORMS = {
    "the": lambda value: "the " + without_article(value),
    "bare": without_article,
    "on": with_preposition,
    "ing": gerund,
}


def speak_as_owner(value):
    return VERB.sub(r"\1", value)


def speak_to_owner(value):
    value = VERB.sub(lambda match: SECOND_PERSON.get(match[1], match[1]), value)
    return re.sub(r"\b(I|my|me|we|our|us)\b", lambda m: {"I": "you", "my": "your", "me": "you"}.get(m[1], m[1]), value)


def speak_about(value, mention, other):
    """`mention` gives the owner as `he`, `him` or `his`, in the order of the words."""
    value = VERB.sub(lambda match: third_person(match[1]), value)
    value = value.replace("I'll ", "I will ")
    owner = {"I": "he", "my": "his", "me": "him"}
    words = {"you": other.shown, "your": other.shown + "'s", "we": "they", "our": "their", "us": "them"}
    return re.sub(
        r"\b(I|my|me|you|your|we|our|us)\b",
        lambda match: mention(owner[match[1]]) if match[1] in owner else words[match[1]],
        value,
    )


def capitalized(text):
    """Sentences start with a capital letter."""
    return re.sub(r"(^|[.?!] )([a-z])", lambda match: match[1] + match[2].upper(), text)


class Scene:
    """Two people, the values of the slots, and which role owns which slot."""

    def __init__(self, people, values, owners):
        self.people = people
        self.values = values
        self.owners = owners
        self.mentioned = []  # in the summary, in this order

    def fill(self, text, speaker=None):
        """The template (without alternatives) as `speaker` says it, or as the summary has it."""

        def replace(match):
            comma, slot, form = match.groups()
            if slot in ("a", "b"):
                name = self.people[slot.upper()].name
                return (", " + name if name else "") if comma else name
            if slot in ("A", "B"):
                return self._mention(slot, form or "shown")
            return self._value(slot, form, speaker)

        return re.sub(r"\s+", " ", capitalized(SLOT.sub(replace, text))).strip()

    def _value(self, slot, form, speaker):
        value = SLOT.sub(lambda match: self._value(match[2], match[3], speaker), self.values[slot])
        value = FORMS[form](value) if form else value
        owner = self.owners.get(slot, "A")
        if speaker == owner:
            return speak_as_owner(value)
        if speaker:
            return speak_to_owner(value)
        return speak_about(value, lambda form: self._mention(owner, form), self.people["B" if owner == "A" else "A"])

    def _mention(self, role, form):
        """A person in the summary: a pronoun where it can't mean anybody else."""
        person, other = self.people[role], self.people["B" if role == "A" else "A"]
        same = bool(other.name) and other.gender == person.gender and other in self.mentioned
        pronoun = bool(person.name) and person in self.mentioned and (not same or self.mentioned[-1] is person)
        self.mentioned.append(person)
        return person.form(form, pronoun)
