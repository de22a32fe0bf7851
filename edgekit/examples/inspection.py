"""Example data: manufacturing quality inspection.

A row is one finding of a station's camera or a worker, in the words that they use.  The answer is one line of JSON with
words of a controlled vocabulary: part, defect, place, size in mm, severity, verdict, and a report for people.

The rules, all of which a model has to learn from examples:

* Words are normalised: a "pinhole" is a pore (``DEFECTS``), what is "barely visible" is minor (``SEVERITIES``).
* The size is copied as a number of mm ("0,4mm" is 0.4), and null where nobody has measured.  It decides nothing.
* Severity and place decide the verdict (``VERDICTS``); on a functional surface (``FUNCTIONAL``) less is allowed.
* A crack is scrap, whatever its severity.

Evaluation rows use (part, defect, place) combinations that no training row has, and also wordings that training lacks.
:mod:`edgekit.examples.inspection_numeric` is harder: there sizes are compared with tolerances.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.examples.answers import NUMBER_OR_NULL, TEXT, answer_schema, one_line, one_of
from edgekit.examples.drawing import Rows, draw_rows, sentence

SYSTEM = "Inspect."

PARTS = ("bracket", "housing", "cover", "flange", "shaft", "valve body", "gear", "panel", "lever", "bushing")
# What is written -> how it is said.
DEFECTS = {
    "scratch": ("scratch", "scrape"),
    "dent": ("dent", "dimple"),
    "crack": ("crack", "fracture"),
    "burr": ("burr", "sharp ridge"),
    "stain": ("stain", "blotch"),
    "pore": ("pore", "pinhole"),
    "chip": ("chip", "nick"),
}
SEVERITIES = {
    "minor": ("faint", "slight", "barely visible"),
    "major": ("clear", "plain", "marked"),
    "critical": ("deep", "severe", "heavy"),
}
SEVERITY_WEIGHTS = (3, 2, 1)  # so that each verdict is common
FUNCTIONAL = ("sealing face", "bore", "thread", "bearing seat")
PLACES = (*FUNCTIONAL, "outer face", "rib", "edge", "underside")
# Severity -> verdict on a functional surface, and elsewhere.
VERDICTS = {"minor": ("rework", "accept"), "major": ("scrap", "rework"), "critical": ("scrap", "scrap")}
HELD_OUT_SHARE = 0.25

# Wordings; the last ones are kept for evaluation.
FRAMES = (
    "{part}, station {station}: {degree} {defect} on the {place}{size}.",
    "{degree} {defect} at the {place} of this {part}{size}.",
    "station {station} camera: {part}, {place}, {degree} {defect}{size}",
    "There is a {degree} {defect} on the {part}, {place}{size}.",
    "{part} / {place} / {defect} / {degree}{size}",
    "On the {part} I see a {degree} {defect}, right at the {place}{size}.",
    "Station {station} again: the {place} of the {part} has a {degree} {defect}{size}.",
    "{part} stopped{size}: {degree} {defect}, {place}.",
)
UNSEEN_FRAMES = 2
SIZES = ("", ", {size} mm", ", about {size} mm", " ({size}mm)", ", {comma} mm")

SCHEMA = answer_schema(
    part=one_of(PARTS),
    defect=one_of(DEFECTS),
    place=one_of(PLACES),
    mm=NUMBER_OR_NULL,
    severity=one_of(SEVERITIES),
    verdict=one_of(verdict for pair in VERDICTS.values() for verdict in pair),
    report=TEXT,
)


@dataclass(frozen=True)
class Finding:
    """What was seen, in the vocabulary of answers; ``size`` in mm, where somebody has measured."""

    part: str
    defect: str
    place: str
    severity: str
    size: float | None


def verdict(finding: Finding) -> str:
    """The verdict on a finding by the rules above."""
    functional, elsewhere = VERDICTS[finding.severity]
    if finding.defect == "crack":
        return "scrap"
    return functional if finding.place in FUNCTIONAL else elsewhere


def answer(finding: Finding) -> str:
    """The reference answer of a finding."""
    judged = verdict(finding)
    return one_line(
        {
            "part": finding.part,
            "defect": finding.defect,
            "place": finding.place,
            "mm": finding.size,
            "severity": finding.severity,
            "verdict": judged,
            "report": f"{finding.severity} {finding.defect} on {finding.place}: {judged}",
        }
    )


def generate(train: int, evaluate: int, seed: int) -> tuple[Rows, Rows]:
    """Training and evaluation rows (chat messages without the system prompt); the same seed gives the same rows."""
    return draw_rows(
        _row,
        list(itertools.product(PARTS, DEFECTS, PLACES)),
        FRAMES,
        (train, evaluate),
        seed,
        held_out_share=HELD_OUT_SHARE,
        unseen_wordings=UNSEEN_FRAMES,
    )


def _row(chosen: random.Random, combination: tuple[str, str, str], frames: Sequence[str]) -> tuple[str, str]:
    part, defect, place = combination
    (severity,) = chosen.choices(list(SEVERITIES), SEVERITY_WEIGHTS)
    measured = chosen.choice(SIZES)
    size = chosen.randint(1, 19) / 10
    text = chosen.choice(frames).format(
        part=part,
        defect=chosen.choice(DEFECTS[defect]),
        place=place,
        degree=chosen.choice(SEVERITIES[severity]),
        size=measured.format(size=size, comma=str(size).replace(".", ",")),
        station=chosen.randint(1, 9),
    )
    return sentence(text), answer(Finding(part, defect, place, severity, size if measured else None))
