"""Example data: notices about companies, and the risk that they mean for a lender.

A row is a notice as a news desk words it, and the answer is one line of JSON: company, event, status, risk, reason.

The rules, all of which a model has to learn from examples:

* What happened is an event (``EVENTS``), and how far it has come is a status (``STATUSES``).
* Event and status decide the risk: an event has a risk when it is a fact, one class less while it is expected, and none
  of it is left ("low") once it is over.
* Amounts in the text decide nothing.

Evaluation rows use (company, event, status) combinations and wordings that training lacks.  The companies are made up,
and so are the rules: no advice.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

from edgekit.examples.answers import TEXT, answer_schema, one_line, one_of
from edgekit.examples.drawing import Recipe, sentence

SYSTEM = "Rate."

COMPANIES = ("Alder", "Birch", "Cedar", "Hazel", "Linden", "Maple", "Oak", "Rowan", "Spruce", "Willow")
RISKS = ("low", "medium", "high", "severe")
# Event -> its risk as a fact, and how notices call it.
EVENTS = {
    "default": ("severe", ("a missed payment", "a default on its bond")),
    "covenant": ("high", ("a breach of covenant", "a broken loan covenant")),
    "fraud": ("severe", ("accounting fraud", "false accounts")),
    "downgrade": ("high", ("a downgrade", "a lower rating")),
    "lawsuit": ("medium", ("a lawsuit", "a court case")),
    "resignation": ("medium", ("the exit of its CFO", "a change of auditor")),
}
STATUSES = {
    "fact": ("reports", "confirms"),
    "expected": ("expects", "warns of"),
    "over": ("has settled", "has overcome"),
}
HELD_OUT_SHARE = 0.25

# The last ones are kept for evaluation.
FRAMES = (
    "{company} {status} {event}{amount}.",
    "Notice: {company} {status} {event}{amount}.",
    "In its filing {company} {status} {event}{amount}.",
    "{company} AG, Zurich: the company {status} {event}{amount}",
    "Shares fall as {company} {status} {event}{amount}.",
    "Update: {company} {status} {event}{amount}",
    "This morning {company} {status} {event}{amount}.",
    "The board of {company} {status} {event}{amount}.",
)
UNSEEN_FRAMES = 2
AMOUNTS = ("", "", ", {amount} million", " (USD {amount}m)")

SCHEMA = answer_schema(
    company=one_of(COMPANIES), event=one_of(EVENTS), status=one_of(STATUSES), risk=one_of(RISKS), reason=TEXT
)


def risk(event: str, status: str) -> str:
    """The risk class by the rules above."""
    fact, _ = EVENTS[event]
    return {"fact": fact, "expected": RISKS[RISKS.index(fact) - 1], "over": "low"}[status]


def answer(company: str, event: str, status: str) -> str:
    """The reference answer."""
    judged = risk(event, status)
    reason = f"{event} {'is over' if status == 'over' else 'is expected' if status == 'expected' else 'is a fact'}"
    return one_line({"company": company, "event": event, "status": status, "risk": judged, "reason": reason})


def _row(chosen: random.Random, combination: tuple[str, str, str], frames: Sequence[str]) -> tuple[str, str]:
    company, event, status = combination
    text = chosen.choice(frames).format(
        company=company,
        status=chosen.choice(STATUSES[status]),
        event=chosen.choice(EVENTS[event][1]),
        amount=chosen.choice(AMOUNTS).format(amount=chosen.randint(2, 99)),
    )
    return sentence(text), answer(company, event, status)


COMBINATIONS = tuple(itertools.product(COMPANIES, EVENTS, STATUSES))
generate = Recipe(_row, COMBINATIONS, FRAMES, HELD_OUT_SHARE, UNSEEN_FRAMES).generate
