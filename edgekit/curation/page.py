"""The page of `edgekit data check --page`: what the table says, with all findings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.curation.check import Checked, Part
from edgekit.curation.findings import KINDS, NOTE, WRONG, Finding
from edgekit.curation.lengths import Lengths
from edgekit.pages import page_frame

SHOWN = 500  # findings of a kind: a page of more is too large to open
LEFT, RIGHT, TOP, FLOOR = 12.0, 348.0, 18.0, 112.0  # of a histogram, in units of its drawing


@dataclass(frozen=True)
class Kind:
    """Findings of one kind; ``chip`` is how grave they are, as the style sheet calls it."""

    name: str
    meaning: str
    chip: str
    count: int
    findings: Sequence[Finding]


@dataclass(frozen=True)
class Share:
    """A value of a label: rows of training and evaluation (None where there is none), in number and percent."""

    value: str
    train: str
    eval: str | None


@dataclass(frozen=True)
class Bar:
    """A bin of a histogram: place, height, and what it holds."""

    x: float
    y: float
    width: float
    height: float
    title: str


def page(checks: Sequence[Checked]) -> str:
    """The page's HTML."""
    levels = {finding.level for each in checks for finding in each.findings}
    state = "refused" if WRONG in levels else "accepted" if levels - {NOTE} else "passed"
    return page_frame("edgekit.curation").render(
        "check.html",
        state=state,
        sections=[_section(number, each) for number, each in enumerate(checks, 1)],
        shown=SHOWN,
    )


def _section(number: int, checked: Checked) -> dict[str, Any]:
    kinds = []
    for kind, count in checked.counts.items():
        level, meaning = KINDS[kind]
        found = [finding for finding in checked.findings if finding.kind == kind]
        chip = "wrong" if level == WRONG else "" if level == NOTE else "partly"
        kinds.append(Kind(kind, meaning, chip, count, found[:SHOWN]))
    return {
        "anchor": f"rows-{number}",
        "name": checked.name,
        "train": checked.train,
        "eval": checked.eval,
        "schema_checked": checked.schema_checked,
        "kinds": kinds,
        "labels": [(each.name, _shares(n, checked.train, checked.eval)) for n, each in enumerate(checked.train.labels)],
        "lengths": checked.train.lengths,
        "bars": [] if checked.train.lengths is None else _bars(checked.train.lengths),
    }


def _shares(number: int, train: Part, evaluation: Part | None) -> list[Share]:
    here = train.labels[number].counts
    there = {} if evaluation is None else evaluation.labels[number].counts
    return [
        Share(
            value,
            _share(here.get(value, 0), train.rows),
            None if evaluation is None else _share(there.get(value, 0), evaluation.rows),
        )
        for value in dict.fromkeys((*here, *there))
    ]


def _share(count: int, rows: int) -> str:
    return f"{count} ({100 * count / rows:.0f} %)" if rows else "0"


def _bars(lengths: Lengths) -> list[Bar]:
    step, most = (RIGHT - LEFT) / len(lengths.bins), max(lengths.bins)
    return [
        Bar(
            x=round(LEFT + number * step + 0.5, 1),
            y=round(FLOOR - count / most * (FLOOR - TOP), 1),
            width=round(step - 1, 1),
            height=round(count / most * (FLOOR - TOP), 1),
            title=f"{number * lengths.width} to {(number + 1) * lengths.width - 1} {lengths.unit}: {count} rows",
        )
        for number, count in enumerate(lengths.bins)
        if count
    ]
