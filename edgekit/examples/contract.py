"""Example data: clauses of supply contracts, and whether somebody has to look at them.

A row is a clause, and the answer is one line of JSON: type, party, days, flag.

The rules, all of which a model has to learn from examples:

* What a clause is about is its type (``CLAUSES``); the party that has to do something is copied.
* The number of days is copied as a number.
* A clause binds its party hard or softly (``FORCES``).  What binds the buyer hard is "red", what binds the supplier
  hard is "green"; what is soft is "yellow" for both.

Evaluation rows use (type, party, force) combinations and wordings that training lacks.  The rules are made up: no legal
advice.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

from edgekit.examples.answers import answer_schema, one_line, one_of
from edgekit.examples.drawing import Recipe, sentence

SYSTEM = "Review."

PARTIES = ("buyer", "supplier")
# Type -> what has to be done.
CLAUSES = {
    "payment": ("pay each invoice", "settle all bills"),
    "delivery": ("deliver the goods", "hand over the ordered parts"),
    "termination": ("end the contract by notice", "give notice of termination"),
    "warranty": ("repair what is defective", "replace faulty goods"),
    "secrecy": ("return confidential papers", "destroy secret documents"),
    "audit": ("allow an audit", "open its books"),
    "penalty": ("pay a penalty for delay", "pay damages for late work"),
}
# Force -> the words for it.
FORCES = {"hard": ("must", "shall in any case"), "soft": ("should", "will, where possible,")}
FLAGS = {
    ("buyer", "hard"): "red",
    ("supplier", "hard"): "green",
    ("buyer", "soft"): "yellow",
    ("supplier", "soft"): "yellow",
}
HELD_OUT_SHARE = 0.25

# The last ones are kept for evaluation.
FRAMES = (
    "The {party} {force} {clause} within {days} days.",
    "§ {number}. Within {days} days the {party} {force} {clause}.",
    "{number}.1 The {party} {force} {clause}, {days} days after request.",
    "After {days} days at the latest, the {party} {force} {clause}.",
    "It is agreed that the {party} {force} {clause} in {days} days.",
    "({number}) The {party} {force} {clause}; the term is {days} days.",
    "Both sides agree: the {party} {force} {clause} before {days} days have passed.",
    "Clause {number}: {days} days from signature, the {party} {force} {clause}.",
)
UNSEEN_FRAMES = 2

SCHEMA = answer_schema(
    type=one_of(CLAUSES),
    party=one_of(PARTIES),
    days={"type": "integer", "minimum": 0},
    force=one_of(FORCES),
    flag=one_of(FLAGS.values()),
)


def answer(clause: str, party: str, force: str, days: int) -> str:
    """The reference answer by the rules above."""
    return one_line({"type": clause, "party": party, "days": days, "force": force, "flag": FLAGS[party, force]})


def _row(chosen: random.Random, combination: tuple[str, str, str], frames: Sequence[str]) -> tuple[str, str]:
    clause, party, force = combination
    days = chosen.choice((5, 7, 10, 14, 21, 30, 45, 60, 90))
    text = chosen.choice(frames).format(
        clause=chosen.choice(CLAUSES[clause]),
        party=party,
        force=chosen.choice(FORCES[force]),
        days=days,
        number=chosen.randint(1, 19),
    )
    return sentence(text), answer(clause, party, force, days)


COMBINATIONS = tuple(itertools.product(CLAUSES, PARTIES, FORCES))
generate = Recipe(_row, COMBINATIONS, FRAMES, HELD_OUT_SHARE, UNSEEN_FRAMES).generate
