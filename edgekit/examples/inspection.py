"""Example data: manufacturing quality inspection.

A row is one finding of a station's camera or a worker, in the words that they use.  The answer is one line of JSON with
words of a controlled vocabulary: part, defect, size in mm, place, check, severity, verdict, and a report for people.

The rules, all of which a model has to learn from examples:

* Words are normalised: a "pinhole" is a pore (``DEFECTS``), what is "barely visible" is minor (``SEVERITIES``).
* The size is copied as a number of mm ("0,4mm" is 0.4), and null where nobody has measured.  It decides nothing.
* The place decides how the part is checked again: functional surfaces by gauge, others by eye (``PLACES``).
* A crack is critical, however it looks.
* Severity decides the verdict (``VERDICTS``).

Evaluation rows use (part, defect, place) combinations that no training row has, and also wordings that training lacks.
:mod:`edgekit.examples.inspection_numeric` is harder: there sizes are compared with tolerances.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.examples.answers import NUMBER_OR_NULL, TEXT, answer_schema, one_line, one_of
from edgekit.examples.drawing import Recipe, sentence

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
# Place -> how to check it again.
PLACES = dict.fromkeys(("sealing face", "bore", "thread", "bearing seat"), "gauge") | dict.fromkeys(
    ("cover side", "rib", "edge", "underside"), "eye"
)
VERDICTS = {"minor": "accept", "major": "rework", "critical": "scrap"}
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
    mm=NUMBER_OR_NULL | {"title": "size in mm"},
    place=one_of(PLACES),
    check=one_of(PLACES.values()),
    severity=one_of(SEVERITIES),
    verdict=one_of(VERDICTS.values()),
    report=TEXT,
)


@dataclass(frozen=True)
class Finding:
    """What somebody saw, in the vocabulary of answers; ``size`` in mm, where somebody has measured."""

    part: str
    defect: str
    place: str
    looks: str
    size: float | None

    @property
    def severity(self) -> str:
        """As it looks, but for cracks."""
        return "critical" if self.defect == "crack" else self.looks

    @property
    def verdict(self) -> str:
        """By the rules above."""
        return VERDICTS[self.severity]


def answer(finding: Finding) -> str:
    """The reference answer of a finding."""
    return one_line(
        {
            "part": finding.part,
            "defect": finding.defect,
            "mm": finding.size,
            "place": finding.place,
            "check": PLACES[finding.place],
            "severity": finding.severity,
            "verdict": finding.verdict,
            "report": f"{finding.severity} {finding.defect} on {finding.place}: {finding.verdict}",
        }
    )


def _row(chosen: random.Random, combination: tuple[str, str, str], frames: Sequence[str]) -> tuple[str, str]:
    part, defect, place = combination
    looks = chosen.choice(list(SEVERITIES))
    measured = chosen.choice(SIZES)
    size = chosen.randint(1, 19) / 10
    text = chosen.choice(frames).format(
        part=part,
        defect=chosen.choice(DEFECTS[defect]),
        place=place,
        degree=chosen.choice(SEVERITIES[looks]),
        size=measured.format(size=size, comma=str(size).replace(".", ",")),
        station=chosen.randint(1, 9),
    )
    return sentence(text), answer(Finding(part, defect, place, looks, size if measured else None))


COMBINATIONS = tuple(itertools.product(PARTS, DEFECTS, PLACES))
generate = Recipe(_row, COMBINATIONS, FRAMES, HELD_OUT_SHARE, UNSEEN_FRAMES).generate
