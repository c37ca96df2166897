"""The key facts of a dialogue: what its summary tells, in the words of the speakers, each with a label.

    day: next Friday | request: fix my sink | reason: I have a bad cold | person: Ada
"""

from grammar import SLOT, slots_of

LABELS = {
    "day": "day day2 soon",
    "time": "clock mins span span2 since",
    "price": "price price2 fee wage wage2",
    "discount": "percent",
    "person": "friend friend2 who need",
    "thing": "item item2 thing thing2 extra look feature paper test plus",
    "place": "dest dest2 meet where landmark home there",
    "option": "x y",
    "event": "event",
    "job": "job",
    "experience": "exp",
    "activity": "act alt goal next",
    "request": "favor errand ask task task2",
    "question": "question",
    "problem": "problem symptom fault trouble bad minus diagnosis",
    "news": "good",
    "reason": "why cause no doubt deny busy excuse blame perk xpro xcon ypro ycon",
    "advice": "tip tip2 treat recover step step2 easy",
    "way": "route route2 busline stops",
    "condition": "cond rule",
    "offer": "offer less",
}
LABEL_OF = {slot: label for label, slots in LABELS.items() for slot in slots.split()}


def key_facts(script, scene, summaries):
    """The facts that a summary of the plot may tell, as the dialogue first says them and in its order."""
    told = set().union(*map(slots_of, summaries)) - {"A", "B"}
    facts = []
    for role, line in script:
        for _, slot, form in (match.groups() for match in SLOT.finditer(line)):
            if slot in told:
                told.remove(slot)
                facts.append(f"{LABEL_OF[slot]}: {scene._value(slot, form, role)}")
    return " | ".join(facts)
