"""Evaluation rows for who names none: a tenth of the training rows, the same ones each time, and never trained on."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence

from edgekit.data.row import Row
from edgekit_runtime.errors import InputError

SHARE = 0.1
MOST = 200  # rows; more tell hardly more, and are missing in training
SEED = 0


def rows_of_side(rows: Sequence[Row], source: str, *, held_out: bool) -> list[Row]:
    """The rows to evaluate on, or those to train on, in their order.

    Rows that ask the same stand on one side.  Which side that is depends on the question and on ``SEED`` alone, so a
    row that is added moves few others.

    Raises:
        InputError: there are fewer than two different questions.
    """
    keys = [_question(row) for row in rows]
    ordered = sorted(set(keys), key=lambda key: hashlib.sha256(f"{SEED}:{key}".encode()).digest())
    if len(ordered) < 2:
        raise InputError(
            f"{source} has one question only, and none is left to evaluate on", "name evaluation rows: data.eval"
        )
    wanted = min(MOST, max(1, round(SHARE * len(rows))))
    counts = Counter(keys)
    chosen: set[str] = set()
    for key in ordered[:-1]:
        if sum(counts[each] for each in chosen) >= wanted:
            break
        chosen.add(key)
    return [row for row, key in zip(rows, keys, strict=True) if (key in chosen) == held_out]


def _question(row: Row) -> str:
    images = [hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else path.name for path in row.images]
    return json.dumps([row.messages, images], sort_keys=True, default=str)
