"""Example data: manufacturing quality inspection by measured sizes, the harder variant.

A small model learns words in minutes and the comparison of decimals hardly ever: this is what to try on larger bases,
and what benchmarks use, as it never gets easy.  :mod:`edgekit.examples.inspection` is what to begin with.

A row is one finding of a station's camera or gauge, worded as an operator or a system would, and the answer is one
line of JSON: part, defect, severity, verdict and a one-line report.

The rules, all of which a model has to learn from examples:

* The tolerance of a defect is ``DEFECTS[defect].tolerance x PARTS[part]`` mm.  Most findings state it; some only say
  "per drawing", and then the table has to be known.
* On a functional surface (``FUNCTIONAL``) only half of it is allowed.
* A size up to the limit, the limit included, is accepted: severity "none".
* Above it: severity "minor" up to 1.5 times the limit, "major" up to 3 times, "critical" beyond.
* A reworkable defect up to twice the limit goes to "rework"; everything else above the limit is "scrap".
* A crack is "critical" and "scrap" at any size.

Sizes are drawn so that each verdict is common and a third of them lie within a tenth of a limit.  Some findings
give the size in µm; the report always speaks of mm.  Evaluation rows use (part, defect, location) combinations that
no training row has, and also wordings that training lacks.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.examples.answers import TEXT, answer_schema, one_of
from edgekit.examples.drawing import Recipe

SYSTEM = "You are a quality inspector. Judge the finding as JSON."


@dataclass(frozen=True)
class Defect:
    """``tolerance`` in mm on a part of factor 1."""

    tolerance: float
    reworkable: bool


PARTS = {"bracket": 1.0, "housing": 1.0, "cover": 2.0, "flange": 0.5, "shaft": 0.5, "valve body": 0.5, "gear": 0.5,
         "panel": 2.0, "lever": 1.0, "bushing": 0.5}  # fmt: skip
DEFECTS = {
    "scratch": Defect(0.4, reworkable=True),
    "burr": Defect(0.2, reworkable=True),
    "stain": Defect(2.0, reworkable=True),
    "dent": Defect(0.6, reworkable=False),
    "pore": Defect(0.4, reworkable=False),
    "chip": Defect(0.2, reworkable=False),
    "crack": Defect(0.0, reworkable=False),
}
FUNCTIONAL = ("sealing face", "bore", "thread", "bearing seat")
LOCATIONS = (*FUNCTIONAL, "outer face", "rib", "edge", "underside")
HELD_OUT_SHARE = 0.25
SCHEMA = answer_schema(
    part=one_of(PARTS),
    defect=one_of(DEFECTS),
    severity=one_of(("none", "minor", "major", "critical")),
    verdict=one_of(("accept", "rework", "scrap")),
    report=TEXT,
)

# Wordings; the last ones of each list are kept for evaluation.
FRAMES = (
    "{part}, station {station}: {defect} {size} on the {location}. {tolerance}",
    "Station {station} camera sees a {defect} of {size}, {location}, part {part}. {tolerance}",
    "part={part}; defect={defect}; size={size}; location={location}; {tolerance}",
    "Found {defect} on {part} ({location}), measured {size} at station {station}. {tolerance}",
    "{size} {defect} at the {location} of a {part}, gauge {station}. {tolerance}",
    "{tolerance} Station {station} reports: {part}, {location}, {defect} {size}.",
    "The {location} of this {part} shows a {defect}, {size}. {tolerance}",
    "Line {station} stopped for a {part}: {defect}, {location}, {size} by the gauge. {tolerance}",
)
STATED = ("Tolerance {value} mm.", "Allowed: {value} mm.", "Limit per sheet {value} mm.", "tol {value} mm")
UNSTATED = ("Tolerance per drawing.", "See drawing.")
NOTES = ("", "", "", " Shift B.", " Lamp 2 was changed.", " Coolant 21 C.", " Second look asked.")
UNSEEN_FRAMES = 2


@dataclass(frozen=True)
class Finding:
    """What was measured: ``size`` in mm."""

    part: str
    defect: str
    location: str
    size: float


def tolerance(part: str, defect: str) -> float:
    """Tolerance in mm before the surface is considered."""
    return round(DEFECTS[defect].tolerance * PARTS[part], 2)


def limit(finding: Finding) -> float:
    """The largest size in mm that is accepted at this place."""
    value = tolerance(finding.part, finding.defect)
    return round(value / 2, 3) if finding.location in FUNCTIONAL else value


def judge(finding: Finding) -> tuple[str, str]:
    """Severity and verdict of a finding by the rules above."""
    if finding.defect == "crack":
        return "critical", "scrap"
    # Whole micrometres: 1.5 x 0.30 is a little less than 0.45 in floating point.
    allowed, size = round(1000 * limit(finding)), round(1000 * finding.size)
    if size <= allowed:
        return "none", "accept"
    severity = "minor" if 2 * size <= 3 * allowed else "major" if size <= 3 * allowed else "critical"
    rework = DEFECTS[finding.defect].reworkable and size <= 2 * allowed
    return severity, "rework" if rework else "scrap"


def answer(finding: Finding) -> str:
    """The reference answer of a finding."""
    severity, verdict = judge(finding)
    measure = f"{finding.size:.2f} mm"
    if finding.defect == "crack":
        report = f"crack of {measure} on {finding.location}: {verdict}"
    else:
        relation = "within" if verdict == "accept" else "over"
        report = f"{finding.defect} of {measure} {relation} {limit(finding):.2f} mm on {finding.location}: {verdict}"
    fields = {
        "part": finding.part,
        "defect": finding.defect,
        "severity": severity,
        "verdict": verdict,
        "report": report,
    }
    return json.dumps(fields)


def _row(chosen: random.Random, combination: tuple[str, str, str], frames: Sequence[str]) -> tuple[str, str]:
    finding = _finding(chosen, *combination)
    return _wording(chosen, finding, frames), answer(finding)


def _finding(chosen: random.Random, part: str, defect: str, location: str) -> Finding:
    """Draw a size: one third near the limit, one third well inside, one third beyond."""
    allowed = limit(Finding(part, defect, location, 0.0)) or 0.5  # cracks have no limit
    low, high = chosen.choice(((0.9, 1.1), (0.2, 0.95), (1.1, 4.0)))
    size = round(allowed * chosen.uniform(low, high), 2)
    return Finding(part, defect, location, max(size, 0.01))


def _wording(chosen: random.Random, finding: Finding, frames: Sequence[str]) -> str:
    size = f"{finding.size:.2f} mm" if chosen.random() < 0.9 else f"{round(finding.size * 1000)} µm"
    if finding.defect == "crack" or chosen.random() < 0.15:
        stated = chosen.choice(UNSTATED)
    else:
        stated = chosen.choice(STATED).format(value=f"{tolerance(finding.part, finding.defect):.2f}")
    text = chosen.choice(frames).format(
        part=finding.part,
        defect=finding.defect,
        location=finding.location,
        size=size,
        station=chosen.randint(1, 9),
        tolerance=stated,
    )
    return text + chosen.choice(NOTES)


COMBINATIONS = tuple(itertools.product(PARTS, DEFECTS, LOCATIONS))
generate = Recipe(_row, COMBINATIONS, FRAMES, HELD_OUT_SHARE, UNSEEN_FRAMES).generate
