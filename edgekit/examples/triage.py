"""Example data: how urgent a question about somebody's health is.

THIS IS AN EXAMPLE OF A CLASSIFIER WITH A SAFETY SENTENCE, AND NO MEDICAL DEVICE.  Its rules are made up to be
learnable and are no medical guidance; nobody's health may depend on an adapter trained on them.

A row is a person's words, and the answer is one line of JSON: who, symptom, sign, triage, safety.

The rules:

* Who is meant, the symptom and a further sign are named in a controlled vocabulary (``WHO``, ``SYMPTOMS``, ``SIGNS``).
* The sign decides the class (``SIGNS``): a red flag is an emergency, whatever the symptom; what gets worse is for
  today, what lasts is for an appointment, what is mild and new is self-care.
* With a baby it is one class more urgent.
* Every answer has the safety sentence of its class (``SAFETY``), the mildest one too.

Evaluation rows use (who, symptom, sign) combinations and wordings that training lacks.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

from edgekit.examples.answers import answer_schema, one_line, one_of
from edgekit.examples.drawing import Recipe, sentence

SYSTEM = "Triage."
NOTICE = "an example with made-up rules, no medical device: nobody's health may depend on its answers"

# Class -> what every answer of that class says; from the most urgent on.
SAFETY = {
    "emergency": "Call the emergency number now.",
    "today": "See a doctor today.",
    "appointment": "Make an appointment; call if it gets worse.",
    "self-care": "Rest; call if it gets worse.",
}
CLASSES = tuple(SAFETY)
WHO = {
    "adult": ("I have", "my husband has", "my sister has"),
    "child": ("my son has", "my daughter has"),
    "baby": ("my baby has", "our newborn has"),
}
SYMPTOMS = {
    "fever": ("fever", "a high temperature"),
    "cough": ("a cough", "coughing fits"),
    "rash": ("a rash", "red spots"),
    "headache": ("a headache", "a sore head"),
    "stomach": ("a stomach ache", "belly cramps"),
    "back": ("back pain", "a sore back"),
}
# Sign -> its class for adults and children, and how people say it.
SIGNS = {
    "breath": ("emergency", ("and can hardly breathe", "and short breath")),
    "faint": ("emergency", ("and has fainted once", "and blacks out")),
    "worse": ("today", ("and it gets worse", "worse each hour")),
    "lasting": ("appointment", ("for three weeks now", "since last month")),
    "mild": ("self-care", ("since this morning, only mild", "but only a little")),
}
HELD_OUT_SHARE = 0.25

# The last ones are kept for evaluation.
FRAMES = (
    "{who} {symptom} {sign}.",
    "Hello, {who} {symptom} {sign}. What should we do?",
    "{who} {symptom} {sign}, is that bad?",
    "Question: {who} {symptom} {sign}",
    "I am worried: {who} {symptom} {sign}.",
    "Good evening. {who} {symptom} {sign}.",
    "Can you help? {who} {symptom} {sign}.",
    "It is like this: {who} {symptom} {sign}, please advise.",
)
UNSEEN_FRAMES = 2

SCHEMA = answer_schema(
    who=one_of(WHO),
    symptom=one_of(SYMPTOMS),
    sign=one_of(SIGNS),
    triage=one_of(CLASSES),
    safety=one_of(SAFETY.values()),
)


def triage(who: str, sign: str) -> str:
    """The class by the rules above."""
    of_sign, _ = SIGNS[sign]
    return CLASSES[max(CLASSES.index(of_sign) - (who == "baby"), 0)]


def answer(who: str, symptom: str, sign: str) -> str:
    """The reference answer."""
    judged = triage(who, sign)
    return one_line({"who": who, "symptom": symptom, "sign": sign, "triage": judged, "safety": SAFETY[judged]})


def _row(chosen: random.Random, combination: tuple[str, str, str], frames: Sequence[str]) -> tuple[str, str]:
    who, symptom, sign = combination
    text = chosen.choice(frames).format(
        who=chosen.choice(WHO[who]), symptom=chosen.choice(SYMPTOMS[symptom]), sign=chosen.choice(SIGNS[sign][1])
    )
    return sentence(text), answer(who, symptom, sign)


COMBINATIONS = tuple(itertools.product(WHO, SYMPTOMS, SIGNS))
generate = Recipe(_row, COMBINATIONS, FRAMES, HELD_OUT_SHARE, UNSEEN_FRAMES).generate
