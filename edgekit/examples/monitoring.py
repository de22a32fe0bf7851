"""Example data: equipment monitoring.

A row is an alarm or a remark about a machine, and the answer is one line of JSON: machine, state, cause, action.

The rules, all of which a model has to learn from examples:

* A symptom points at the part that causes it: a machine that hums has a bad bearing (``SYMPTOMS``).
* The words for how bad it is decide the state (``STATES``): "a little" is watch, "all the time" is warning, "has
  tripped" is alarm.  A machine that hums no more is ok, and has the cause "none".
* State and cause decide the action (``ACTIONS``).
* The machine is copied, with its number; readings in the text ("71 C") decide nothing.

Evaluation rows use (machine, symptom, state) combinations and wordings that training lacks.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

from edgekit.examples.answers import TEXT, answer_schema, one_line, one_of
from edgekit.examples.drawing import Recipe, sentence

SYSTEM = "Monitor."

MACHINES = ("pump", "fan", "spindle", "conveyor", "press", "compressor", "mixer", "robot")
# Cause -> what a machine does then.
SYMPTOMS = {
    "bearing": ("hums", "grinds", "vibrates"),
    "cooling": ("runs hot", "overheats", "smells burnt"),
    "valve": ("loses pressure", "leaks", "drips"),
    "belt": ("slips", "squeals", "loses speed"),
    "sensor": ("sends no signal", "shows wrong values", "is offline"),
}
# State -> how bad it is.
STATES = {
    "ok": ("no more", "no longer"),
    "watch": ("a little", "now and then"),
    "warning": ("badly", "all the time"),
    "alarm": ("and has tripped", "and has stopped"),
}
# State -> what to do about the cause.
ACTIONS = {
    "ok": "none",
    "watch": "check the {cause} at next service",
    "warning": "check the {cause} today",
    "alarm": "keep it off, repair the {cause}",
}
HELD_OUT_SHARE = 0.25

# The last ones are kept for evaluation.
FRAMES = (
    "{machine} {symptom} {degree}{reading}.",
    "Alarm of {machine}: it {symptom} {degree}{reading}.",
    "{machine}: {symptom} / {degree}{reading}",
    "Since noon {machine} {symptom} {degree}{reading}.",
    "The operator says that {machine} {symptom} {degree}{reading}.",
    "line 2, {machine}, {symptom} {degree}{reading}",
    "Please look at {machine}, it {symptom} {degree}{reading}.",
    "On shift B {machine} {symptom} {degree}{reading}.",
)
UNSEEN_FRAMES = 2
READINGS = ("", "", ", {celsius} C", ", {bar} bar")

SCHEMA = answer_schema(machine=TEXT, state=one_of(STATES), cause=one_of(("none", *SYMPTOMS)), action=TEXT)


def answer(machine: str, symptom: str, state: str) -> str:
    """The reference answer by the rules above; ``symptom`` is one of those in ``SYMPTOMS``."""
    cause = "none" if state == "ok" else next(cause for cause, signs in SYMPTOMS.items() if symptom in signs)
    action = ACTIONS[state].format(cause=cause)
    return one_line({"machine": machine, "state": state, "cause": cause, "action": action})


def _row(chosen: random.Random, combination: tuple[str, str, str], frames: Sequence[str]) -> tuple[str, str]:
    kind, symptom, state = combination
    machine = f"{kind} {chosen.randint(1, 20)}"
    reading = chosen.choice(READINGS).format(celsius=chosen.randint(20, 95), bar=chosen.randint(10, 99) / 10)
    text = chosen.choice(frames).format(
        machine=machine, symptom=symptom, degree=chosen.choice(STATES[state]), reading=reading
    )
    return sentence(text), answer(machine, symptom, state)


COMBINATIONS = tuple(itertools.product(MACHINES, itertools.chain(*SYMPTOMS.values()), STATES))
generate = Recipe(_row, COMBINATIONS, FRAMES, HELD_OUT_SHARE, UNSEEN_FRAMES).generate
