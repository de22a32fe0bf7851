"""`edgekit data split`: rows aside for evaluation, of each label its share, and none that training has."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.curation.labels import find_labels, value_text
from edgekit.curation.raw_files import RawRow, as_bytes, beside, kind_of, read_raw
from edgekit.curation.samples import Sample
from edgekit.curation.similar import LIKENESS, groups
from edgekit.data.shapes import ROW_KEYS
from edgekit_runtime.errors import InputError, UsageError
from edgekit_runtime.files.atomic import check_writable, write_whole
from edgekit_runtime.hints import did_you_mean


@dataclass(frozen=True)
class Split:
    """A split that was written.

    Attributes:
        train: the file to train on; ``eval`` to evaluate on.
        rows: how many are in each, training first.
        label: what they are stratified by; None for nothing.
        counts: value of the label -> rows of training and of evaluation.
        together: rows that are near another one, or of its group, and stand on its side.
    """

    train: Path
    eval: Path
    rows: tuple[int, int]
    label: str | None
    counts: dict[str, tuple[int, int]]
    together: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "train": str(self.train),
            "eval": str(self.eval),
            "rows": {"train": self.rows[0], "eval": self.rows[1]},
            "label": self.label,
            "counts": {value: {"train": train, "eval": other} for value, (train, other) in self.counts.items()},
            "together": self.together,
        }


def split_file(
    path: Path,
    share: float,
    *,
    folder: Path | None = None,
    by: str | None = None,
    group: str | None = None,
    seed: int = 0,
    likeness: float = LIKENESS,
    ignore_numbers: bool = False,
    ignore: Sequence[str] = (),
    force: bool = False,
) -> Split:
    """Write the rows of a file to two files of the same kind, ``NAME.train.…`` and ``NAME.eval.…``.

    Args:
        path: the rows.
        share: of rows for evaluation when below 1, else their number.
        folder: where the files go; None for beside ``path``.
        by: field of answers, or key of rows, to stratify by; None for the label with the fewest values.
        group: key of rows; those with the same value stay on one side.
        seed: the same gives the same split.
        likeness: from which two questions are near-duplicates, which stay on one side.
        ignore_numbers: questions that differ in numbers only are near-duplicates too.
        ignore: columns that are kept, and are no part of rows.
        force: replace files that are there.

    Raises:
        UsageError: no rows would be left for one side.
        InputError: bad rows, no such key, files that are there, or all rows are near one another.
    """
    if share > 1 and not float(share).is_integer():
        raise UsageError(f"{share:g} is neither a share nor a number of rows", "choose another --eval, 0.1 or 40 say")
    kind_of(path)
    rows = read_raw(path, [*ignore, *(name for name in (by, group) if name is not None and name not in ROW_KEYS)])
    folder = folder or path.parent
    train, evaluation = beside(path, "train", folder), beside(path, "eval", folder)
    for target in (train, evaluation):
        check_writable(target)
        if target.exists() and not force:
            raise InputError(f"{target} is there already", "name another folder with --output, or add --force")
    if folder.resolve() != path.parent.resolve() and any(row.sample.row.images for row in rows):
        raise InputError(f"{path} names images by paths that start at its folder", "leave --output out")
    label, values = _values(rows, by)
    keys = None if group is None else [_key(row, group) for row in rows]
    samples = [row.sample for row in rows]
    atoms = groups(samples, keys, likeness, ignore_numbers=ignore_numbers)
    count = math.floor(share * len(rows) + 0.5) if share < 1 else int(share)
    if not 1 <= count < len(rows):
        raise UsageError(f"{count} of {len(rows)} rows for evaluation leave none on one side", "choose another --eval")
    aside = set(choose(atoms, values, count, seed))
    if not aside or len(aside) == len(rows):
        raise InputError(
            f"{path} can't be split: nearly all rows are near one another, or of one group",
            "raise --near, or gather rows that differ more",
        )
    if force:  # a pair of an old and a new file would leak: rather one is missing for a moment
        evaluation.unlink(missing_ok=True)
    write_whole(train, as_bytes(path, [row.value for number, row in enumerate(rows) if number not in aside]))
    write_whole(evaluation, as_bytes(path, [row.value for number, row in enumerate(rows) if number in aside]))
    totals, theirs = Counter(values), Counter(values[number] for number in aside)
    return Split(
        train=train,
        eval=evaluation,
        rows=(len(rows) - len(aside), len(aside)),
        label=label,
        counts={value: (totals[value] - theirs[value], theirs[value]) for value in totals} if label else {},
        together=sum(len(atom) for atom in atoms if len(atom) > 1),
    )


def choose(atoms: Sequence[Sequence[int]], values: Sequence[str], count: int, seed: int) -> list[int]:
    """Numbers of rows for evaluation, sorted.

    Each label's share of ``count`` is rounded so that the shares sum up to it.  Rows that belong together go as a whole
    or not at all, and those alone go first: evaluation on many that are nearly the same says little.

    Args:
        atoms: rows that belong together.
        values: the label of each row.
        count: rows wanted; fewer come where those that belong together don't fit.
        seed: the same gives the same rows.
    """
    left = Counter(_quotas(Counter(values), count))
    shuffled = list(atoms)
    random.Random(seed).shuffle(shuffled)
    chosen: list[int] = []
    for atom in sorted(shuffled, key=len):  # stable: of one size in the order of the shuffle
        wanted = Counter(values[number] for number in atom)
        if all(left[value] >= needed for value, needed in wanted.items()):
            left -= wanted
            chosen += atom
    return sorted(chosen)


def _quotas(totals: Counter[str], count: int) -> dict[str, int]:
    """``count`` shared out by the largest remainder: each value's part is within one of its exact share."""
    rows = totals.total()
    exact = {value: total * count / rows for value, total in totals.items()}
    quotas = {value: math.floor(share) for value, share in exact.items()}
    by_rest = sorted(exact, key=lambda value: (quotas[value] - exact[value], value))
    for value in by_rest[: count - sum(quotas.values())]:
        quotas[value] += 1
    return quotas


def _values(rows: Sequence[RawRow], by: str | None) -> tuple[str | None, list[str]]:
    samples = [row.sample for row in rows]
    if by is None:
        labels = sorted(find_labels(samples), key=lambda label: len(label.counts))
        by = labels[0].name if labels else None
        if by is None:
            return None, [""] * len(rows)
    found = [_value(row, by) for row in rows]
    if all(value is None for value in found):
        known = dict.fromkeys(name for row in rows for name in (*_fields(row.sample), *row.value))
        raise InputError(f"no row has {by!r}", did_you_mean(by, known))
    return by, [value or "" for value in found]


def _value(row: RawRow, name: str) -> str | None:
    fields = _fields(row.sample)
    if name in fields:
        return value_text(fields[name])
    if name in row.value:
        return value_text(row.value[name])
    return row.sample.row.answer.strip() if name == "answer" else None


def _fields(one: Sample) -> dict[str, Any]:
    return one.value if isinstance(one.value, dict) else {}


def _key(row: RawRow, name: str) -> Hashable:
    if name not in row.value:
        raise InputError(f"{row.sample.row.where}: there is no {name!r} to group by", did_you_mean(name, row.value))
    value = row.value[name]
    return None if value is None else value_text(value)
