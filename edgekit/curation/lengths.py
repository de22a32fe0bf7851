"""How long rows are, in tokens of a base or in characters."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.data import Row
from edgekit_runtime.prompts.chat import text_of

CHARACTERS, TOKENS = "characters", "tokens"
_BINS = 12
_STEPS = (1, 2, 5)  # widths of bins are these times a power of ten

Measure = Callable[[Row], int]  # question and answer together


@dataclass(frozen=True)
class Lengths:
    """Lengths of rows.

    Attributes:
        unit: :data:`TOKENS` or :data:`CHARACTERS`.
        shortest: of all rows, as ``median``, ``p95`` and ``longest``.
        width: of a bin; bin n holds lengths from n x width on.
        bins: rows in each bin.
    """

    unit: str
    shortest: int
    median: int
    p95: int
    longest: int
    width: int
    bins: tuple[int, ...]


def characters(row: Row) -> int:
    """Length without a base: of all texts."""
    return sum(len(text_of(message)) for message in row.messages) + len(row.answer)


def token_measure(folder: Path, system: str | None, reasoning: str | None) -> Measure:
    """Length in training: as the base's chat template writes the row, system prompt included; -1 where it can't.

    Args:
        folder: the base's Hugging Face folder.
        system: the adapter's system prompt.
        reasoning: what becomes of reasoning, as in the project file.

    Raises:
        InputError: there is no tokenizer or chat template.
    """
    from edgekit.encoding.encoder import Encoder
    from edgekit_runtime.errors import InputError

    encoder = Encoder(folder, reasoning=reasoning)

    def measure(row: Row) -> int:
        try:
            return sum(len(each["input_ids"]) for each in encoder.encode(row, system, 2**31))
        except InputError:
            return -1

    return measure


def lengths_of(measured: Sequence[int], unit: str) -> Lengths | None:
    """Figures and histogram of lengths; None where there are none."""
    ordered = sorted(measured)
    if not ordered:
        return None
    width = _width(ordered[-1] / _BINS)
    bins = [0] * (ordered[-1] // width + 1)
    for length in ordered:
        bins[length // width] += 1
    return Lengths(
        unit=unit,
        shortest=ordered[0],
        median=round(statistics.median(ordered)),
        p95=ordered[math.ceil(0.95 * len(ordered)) - 1],
        longest=ordered[-1],
        width=width,
        bins=tuple(bins),
    )


def _width(least: float) -> int:
    power = int(10 ** math.floor(math.log10(max(least, 1))))
    return next(step * power for step in (*_STEPS, 10) if step * power >= least)
