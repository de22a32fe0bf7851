"""Checks as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgekit.curation.check import Checked, Part
from edgekit.curation.findings import KINDS
from edgekit.curation.lengths import Lengths
from edgekit.curation.split import Split
from edgekit_runtime.bench.report import aligned
from edgekit_runtime.errors import one_line

SHOWN = 5  # findings of a kind
_BAR = 30  # columns


def checks_table(checks: Sequence[Checked]) -> str:
    """What was found, a block for each data set."""
    return "\n\n".join("\n".join(_lines(each)) for each in checks)


def split_table(done: Split) -> str:
    """What a split wrote."""
    lines = [
        f"{path}: {rows} row{'' if rows == 1 else 's'}"
        for path, rows in zip((done.train, done.eval), done.rows, strict=True)
    ]
    if done.together:
        lines.append(f"{done.together} rows are near another one, or of its group, and stand on its side")
    if done.label is not None:
        rows = [[one_line(done.label), "train", "eval"]]
        rows += [[one_line(value), *map(str, counts)] for value, counts in sorted(done.counts.items())]
        lines += ["", *aligned(rows)]
    return "\n".join(lines)


def _lines(checked: Checked) -> Iterator[str]:
    evaluation = "" if checked.eval is None else f", {checked.eval.rows} to evaluate on"
    yield f"{checked.name}: {checked.train.rows} rows to train on{evaluation}"
    counts = checked.counts
    if not counts:
        yield "nothing found"
    for kind, count in counts.items():
        yield f"\n{kind}: {count} ({KINDS[kind][1]})"
        found = [finding for finding in checked.findings if finding.kind == kind]
        for finding in found[:SHOWN]:
            beside = f" ({finding.other})" if finding.other else ""
            yield f"  {one_line(f'{finding.where}: {finding.text}{beside}')}"
        if len(found) > SHOWN:
            yield f"  and {len(found) - SHOWN} more: --json and --page have all"
    yield from _labels(checked.train, checked.eval)
    if checked.train.lengths is not None:
        yield ""
        yield from _histogram(checked.train.lengths)


def _labels(train: Part, evaluation: Part | None) -> Iterator[str]:
    for number, label in enumerate(train.labels):
        yield ""
        there = {} if evaluation is None else evaluation.labels[number].counts
        rows = [[one_line(label.name), "train", "", *([] if evaluation is None else ["eval", ""])]]
        for value in dict.fromkeys((*label.counts, *there)):
            rows.append([one_line(value), *_cells(label.counts.get(value, 0), train.rows)])
            if evaluation is not None:
                rows[-1] += _cells(there.get(value, 0), evaluation.rows)
        yield from aligned(rows)


def _cells(count: int, rows: int) -> list[str]:
    return [str(count), f"{100 * count / rows:.0f} %" if rows else ""]


def _histogram(lengths: Lengths) -> Iterator[str]:
    yield (
        f"length of training rows in {lengths.unit}: {lengths.shortest} to {lengths.longest}, "
        f"median {lengths.median}, 95 % up to {lengths.p95}"
    )
    most, edge = max(lengths.bins), len(str(lengths.width * len(lengths.bins)))
    first = next(number for number, count in enumerate(lengths.bins) if count)
    for number, count in enumerate(lengths.bins[first:], first):
        bar = "#" * -(-count * _BAR // most)
        yield f"  {number * lengths.width:>{edge}} - {(number + 1) * lengths.width - 1:>{edge}}  {bar:{_BAR}}  {count}"
