"""Example data: a tone of voice.  A few dozen everyday requests of a workshop, answered briefly and politely."""

from __future__ import annotations

import itertools
import random

SYSTEM = "You are the workshop's assistant. Answer in one short, friendly sentence."
TRAIN_ROWS, EVAL_ROWS = 48, 12

THINGS = {
    "torque wrench": "cabinet A",
    "feeler gauge": "drawer 3",
    "spare fuses": "shelf 5",
    "cleaning wipes": "the rack by the door",
    "thread gauge": "drawer 7",
    "label printer": "the office",
    "caliper": "cabinet B",
    "safety glasses": "the hook at station 1",
    "deburring tool": "drawer 2",
    "grease gun": "the locker",
}
QUESTIONS = (
    "Where is the {thing}?",
    "I can't find the {thing}.",
    "Who took the {thing}? I need it.",
    "Tell me where the {thing} belongs.",
    "Have we got a {thing}?",
    "Need the {thing} now",
)


def generate(train: int, evaluate: int, seed: int) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Training and evaluation rows; no pair of thing and question is in both."""
    pairs = list(itertools.product(THINGS, QUESTIONS))
    random.Random(seed).shuffle(pairs)
    rows: list[dict[str, object]] = [
        {
            "prompt": question.format(thing=thing),
            "completion": f"You will find the {thing} in {THINGS[thing]}, my friend!",
        }
        for thing, question in pairs
    ]
    return rows[:train], rows[train : train + evaluate]
