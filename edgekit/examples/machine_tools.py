"""Example data: an assistant that calls the tools of a shop floor.

A row asks for something, with the same three tools in each row.  The answer is one call, or a sentence where none is
due.

The rules, all of which a model has to learn from examples:

* The machine is copied ("press 3").  Where no machine is named, the answer asks for it, and nothing is called.
* A reading is asked of ``read_sensor``.  Words are normalised: "oil" is the level (``SENSORS``).
* A change goes to ``set_parameter``, in percent, 10 to 100.  Where no value is named, the answer asks for it.
* What is broken goes to ``open_ticket``: what is said of it is normalised (``PROBLEMS``), and it is urgent where words
  of haste are there (``URGENT``).
* What no tool can do is refused, and thanks are answered.

Whether a value is named is drawn for each row: parameter and machine tell nothing of the answer.  No row asks for
values beyond the limits: a model of 135 million parameters does not learn in minutes to compare numbers.

Evaluation rows use (case, subject, kind of machine) combinations that no training row has, and also wordings that
training lacks.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from typing import Any

from edgekit.examples.answers import one_of
from edgekit.examples.drawing import Answer, Recipe, sentence

SYSTEM = "Operate."
TRAIN_ROWS = 600

KINDS = ("press", "lathe", "mill", "saw", "oven", "robot")
# As the tool has it -> how it is said.
SENSORS = {
    "temperature": ("temperature", "heat"),
    "pressure": ("pressure",),
    "speed": ("speed", "rpm"),
    "vibration": ("vibration",),
    "level": ("oil", "oil level"),
    "current": ("current", "amps"),
}
PARAMETERS = {
    "speed": ("speed",),
    "pressure": ("pressure",),
    "temperature": ("temperature", "heat"),
    "feed": ("feed",),
    "torque": ("torque",),
    "flow": ("flow",),
}
PROBLEMS = {
    "leak": ("leaks", "drips"),
    "noise": ("squeals", "rattles"),
    "jam": ("is jammed", "is stuck"),
    "smoke": ("smokes", "smells burnt"),
    "crack": ("has a crack", "is cracked"),
    "power": ("is dead", "has no power"),
}
URGENT = {True: ("urgent", "at once", "right now"), False: ("no hurry", "some day", "next week")}
WISHES = ("switch off", "clean", "sell", "paint")
LIMITS = (10, 100)  # percent
PERCENTS = range(LIMITS[0], LIMITS[1] + 1, 5)
NAMED_SHARE = 0.75  # of the changes name their value
HELD_OUT_SHARE = 0.25

READ, SET, CHANGE, TICKET, WHICH, WISH, THANKS = "read", "set", "change", "ticket", "which", "wish", "thanks"
WORDS: dict[str, Mapping[str, Sequence[str]]] = {
    READ: SENSORS,
    WHICH: SENSORS,
    SET: PARAMETERS,
    TICKET: PROBLEMS,
}
# Sentences, a wording in each place; the last ones are kept for evaluation.
SENTENCES = {
    READ: (
        "Read the {subject} of {machine}.",
        "{machine}: what is the {subject}?",
        "Please check the {subject} at {machine}.",
        "How high is the {subject} of {machine}?",
        "Tell me the {subject} of {machine}.",
        "{subject} of {machine}?",
        "Can you look up the {subject} of {machine}?",
        "I want to know the {subject} on {machine}.",
    ),
    SET: (
        "Set the {subject} of {machine} to {percent} %.",
        "{machine}: {subject} to {percent} percent.",
        "Please change the {subject} at {machine} to {percent}%.",
        "Put {machine} at {percent} % {subject}.",
        "Run {machine} with {percent} percent {subject}.",
        "New {subject} for {machine}: {percent} %.",
        "Can you bring the {subject} of {machine} to {percent} %?",
        "I want {percent} percent {subject} on {machine}.",
    ),
    CHANGE: (
        "Set the {subject} of {machine}.",
        "{machine}: another {subject}.",
        "Please change the {subject} at {machine}.",
        "Put {machine} at another {subject}.",
        "Run {machine} with another {subject}.",
        "New {subject} for {machine}.",
        "Can you change the {subject} of {machine}?",
        "I want another {subject} on {machine}.",
    ),
    TICKET: (
        "{machine} {subject}, {haste}.",
        "{machine}: it {subject}, {haste}!",
        "Please report that {machine} {subject}, {haste}.",
        "Problem: {machine} {subject} ({haste}).",
        "Call the fitter, {haste}: {machine} {subject}.",
        "Ticket, {haste}: {machine} {subject}.",
        "Can you report this, {haste}: {machine} {subject}?",
        "I see that {machine} {subject}, {haste}.",
    ),
    WISH: (
        "{subject} {machine}.",
        "{machine}: {subject} it.",
        "Please {subject} {machine}.",
        "You have to {subject} {machine}.",
        "{subject} {machine} now.",
        "Somebody should {subject} {machine}.",
        "Can you {subject} {machine}?",
        "I want you to {subject} {machine}.",
    ),
    THANKS: (
        "Thanks, {machine} is fine.",
        "{machine} runs, thank you.",
        "{machine} is good again, thanks.",
        "Well done, {machine} works.",
        "Great, {machine} is back.",
        "Thank you for {machine}.",
        "All good with {machine}, thanks.",
        "I thank you, {machine} is fine.",
    ),
}
WORDINGS = tuple(map(str, range(len(SENTENCES[SET]))))
UNSEEN_WORDINGS = 2

REPLIES = {
    CHANGE: "How many percent?",
    WHICH: "Which machine?",
    WISH: "I have no tool for that.",
    THANKS: "You're welcome.",
}
_MACHINE = {"type": "string"}


def _tool(name: str, description: str, **parameters: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "properties": parameters, "required": list(parameters), "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


TOOLS = (
    _tool("read_sensor", "Read a sensor.", machine=_MACHINE, sensor=one_of(SENSORS)),
    _tool(
        "set_parameter",
        "Set a parameter.",
        machine=_MACHINE,
        parameter=one_of(PARAMETERS),
        percent={"type": "integer", "minimum": LIMITS[0], "maximum": LIMITS[1]},
    ),
    _tool("open_ticket", "Report a problem.", machine=_MACHINE, problem=one_of(PROBLEMS), urgent={"type": "boolean"}),
)

Combination = tuple[str, str, str]  # case, subject, kind of machine


def _combinations() -> list[Combination]:
    subjects = {case: tuple(words) for case, words in WORDS.items()} | {WISH: WISHES, THANKS: ("",)}
    kinds = {case: KINDS if case != WHICH else ("the machine",) for case in subjects}
    return [(case, *rest) for case, words in subjects.items() for rest in itertools.product(words, kinds[case])]


def _call(name: str, **arguments: object) -> Answer:
    call = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def answer(case: str, subject: str, machine: str, *, percent: int, urgent: bool) -> Answer:
    """The reference answer by the rules above."""
    if case == READ:
        return _call("read_sensor", machine=machine, sensor=subject)
    if case == SET:
        return _call("set_parameter", machine=machine, parameter=subject, percent=percent)
    if case == TICKET:
        return _call("open_ticket", machine=machine, problem=subject, urgent=urgent)
    return REPLIES[case]


def _row(chosen: random.Random, combination: Combination, wordings: Sequence[str]) -> tuple[str, Answer]:
    case, subject, kind = combination
    machine = kind if case == WHICH else f"{kind} {chosen.randint(1, 20)}"
    percent = chosen.choice(PERCENTS)
    urgent = chosen.choice((True, False))
    words = WORDS[case][subject] if case in WORDS else (subject,)
    if case == SET and chosen.random() >= NAMED_SHARE:
        case = CHANGE
    frame = SENTENCES[READ if case == WHICH else case][int(chosen.choice(wordings))]
    text = frame.format(
        subject=chosen.choice(words),
        machine=machine,
        percent=percent,
        haste=chosen.choice(URGENT[urgent]),
    )
    return sentence(text), answer(case, subject, machine, percent=percent, urgent=urgent)


COMBINATIONS = _combinations()
generate = Recipe(_row, COMBINATIONS, WORDINGS, HELD_OUT_SHARE, UNSEEN_WORDINGS, tools=TOOLS).generate
