"""Example data: equipment monitoring.

A row is a machine's readings, each with its limit, and the answer is one line of JSON: machine, alert, cause, action.

The rules:

* A reading's load is its value divided by its limit; the reading with the largest load is the cause.
* The largest load decides the alert: "ok" up to 0.8, "watch" up to 1.0, "warning" up to 1.25, "critical" beyond,
  each bound included.
* Two readings above their limits make it "critical".
* A rising trend lifts "ok" to "watch" and "watch" to "warning".
* "ok" has the cause "none"; the action follows from alert and cause (``ACTIONS``).

Evaluation rows use (machine, first reading, second reading) combinations and wordings that training lacks.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.examples.drawing import Rows, draw_rows

SYSTEM = "You watch machines. Judge the readings as JSON."

MACHINES = ("pump", "fan", "spindle", "conveyor", "press", "compressor", "mixer", "robot")
# Reading -> (unit, usual limits, digits).
READINGS = {
    "vibration": ("mm/s", (4.5, 7.1, 11.0), 1),
    "temperature": ("C", (60.0, 80.0, 95.0), 0),
    "current": ("A", (8.0, 16.0, 32.0), 1),
    "pressure": ("bar", (4.0, 6.0, 10.0), 1),
    "noise": ("dB", (75.0, 85.0, 90.0), 0),
}
CHECKS = {
    "vibration": "check the bearing",
    "temperature": "check the cooling",
    "current": "check the drive",
    "pressure": "check the valve",
    "noise": "check the mounting",
}
TRENDS = ("steady", "rising", "falling")
ALERTS = ("ok", "watch", "warning", "critical")
HELD_OUT_SHARE = 0.25

# The last ones are kept for evaluation.
FRAMES = (
    "{machine} {number}: {first}, {second}. Trend {trend}.",
    "Readings of {machine} {number}: {first}; {second}; trend: {trend}.",
    "machine={machine} {number}; {first}; {second}; {trend}",
    "{first} and {second} at {machine} {number}, {trend}.",
    "Trend {trend}. {machine} {number} shows {second} and {first}.",
    "{machine} {number} sends: {second}, {first}, {trend} since noon.",
    "On {machine} {number} we measure {first}, {second}; it is {trend}.",
)
UNSEEN_FRAMES = 2
READING_FRAMES = (
    "{name} {value} {unit} (limit {limit})",
    "{name} {value} of {limit} {unit}",
    "{name} {value}/{limit} {unit}",
)


@dataclass(frozen=True)
class Reading:
    """``value`` and ``limit`` in the reading's unit."""

    name: str
    value: float
    limit: float

    @property
    def load(self) -> float:
        """Value over limit, rounded so that a load of exactly 0.8 is one."""
        return round(self.value / self.limit, 9)


def judge(readings: tuple[Reading, ...], trend: str) -> tuple[str, str]:
    """Alert and cause by the rules above."""
    worst = max(readings, key=lambda reading: reading.load)
    level = sum(worst.load > bound for bound in (0.8, 1.0, 1.25))
    if sum(reading.load > 1.0 for reading in readings) > 1:
        level = 3
    if trend == "rising" and level < 2:
        level += 1
    return ALERTS[level], worst.name if level else "none"


def action(alert: str, cause: str) -> str:
    """What to do."""
    if alert == "ok":
        return "none"
    if alert == "critical":
        return f"stop and {CHECKS[cause]}"
    return f"{CHECKS[cause]} {'today' if alert == 'warning' else 'at next service'}"


def answer(machine: str, readings: tuple[Reading, ...], trend: str) -> str:
    """The reference answer."""
    alert, cause = judge(readings, trend)
    return json.dumps({"machine": machine, "alert": alert, "cause": cause, "action": action(alert, cause)})


def generate(train: int, evaluate: int, seed: int) -> tuple[Rows, Rows]:
    """Training and evaluation rows (chat messages without the system prompt); the same seed gives the same rows."""
    return draw_rows(
        _row,
        [(machine, *pair) for machine in MACHINES for pair in itertools.permutations(READINGS, 2)],
        FRAMES,
        (train, evaluate),
        seed,
        held_out_share=HELD_OUT_SHARE,
        unseen_wordings=UNSEEN_FRAMES,
    )


def _row(chosen: random.Random, combination: tuple[str, str, str], frames: Sequence[str]) -> tuple[str, str] | None:
    kind, *names = combination
    machine = f"{kind} {chosen.randint(1, 20)}"
    readings = tuple(_reading(chosen, name) for name in names)
    trend = chosen.choice(TRENDS)
    text = _wording(chosen, machine, readings, trend, frames)
    if readings[0].load == readings[1].load:  # a tie has no single cause
        return None
    return text, answer(machine, readings, trend)


def _reading(chosen: random.Random, name: str) -> Reading:
    _, limits, digits = READINGS[name]
    bound = chosen.choice(limits)
    low, high = chosen.choice(((0.3, 0.8), (0.3, 0.8), (0.75, 1.05), (1.0, 1.6)))
    return Reading(name, round(bound * chosen.uniform(low, high), digits), bound)


def _wording(
    chosen: random.Random, machine: str, readings: tuple[Reading, ...], trend: str, frames: Sequence[str]
) -> str:
    kind, _, number = machine.partition(" ")
    style = chosen.choice(READING_FRAMES)
    first, second = (
        style.format(
            name=reading.name,
            value=f"{reading.value:.{READINGS[reading.name][2]}f}",
            limit=f"{reading.limit:g}",
            unit=READINGS[reading.name][0],
        )
        for reading in readings
    )
    return chosen.choice(frames).format(machine=kind, number=number, first=first, second=second, trend=trend)
