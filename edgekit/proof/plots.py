"""The plots of the page as geometry; ``templates/plots.html`` draws them as SVG in the page's colours.

Each is WIDTH units wide, which are pixels on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.proof.compare import Proof
from edgekit.proof.ladder import Rung, pareto_front
from edgekit.proof.words import figure

WIDTH = 360.0
LEFT, RIGHT = 12.0, 348.0  # of what is plotted
BARS_FROM, BARS_TO = 62.0, 312.0  # of scores: names before, figures after
SIGN = 6.6  # the width of a letter, about: enough to keep labels apart
LINE = 14.0
LEAST_KL, MOST_KL, BINS = 1e-6, 10.0, 28  # four bins a decade


@dataclass(frozen=True)
class Axis:
    """From figures to places: ``low`` stands at ``start`` and ``high`` at ``end``; on a log axis all are above zero."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The place, kept on the axis."""
        low, high, value = (math.log(max(each, 1e-300)) if self.log else each for each in (self.low, self.high, value))
        share = (value - low) / (high - low) if high > low else 0.5
        return round(self.start + min(1.0, max(0.0, share)) * (self.end - self.start), 1)


@dataclass(frozen=True)
class Tick:
    """A place on an axis and what stands there."""

    at: float
    text: str


@dataclass(frozen=True)
class Bar:
    """A score: ``kind`` is base, torch or device, ``to`` where the bar ends."""

    kind: str
    name: str
    to: float
    value: str


@dataclass(frozen=True)
class Span:
    """A figure with its 95 % interval; the low end must not lie between ``refused``'s two places."""

    name: str
    value: str
    low: float
    at: float
    high: float
    refused: tuple[float, float]
    zero: float
    ticks: Sequence[Tick]
    good: bool


@dataclass(frozen=True)
class Histogram:
    """How KL spreads over tokens: x, y and height of each bin, and the places of mean and limit."""

    bins: Sequence[tuple[float, float, float]]
    bin_width: float
    ticks: Sequence[Tick]
    mean: Tick | None
    limit: Tick
    base: float


@dataclass(frozen=True)
class Point:
    """A quantisation of the ladder, and where its label goes."""

    x: float
    y: float
    label: Tick
    label_y: float
    may_ship: bool
    chosen: bool


@dataclass(frozen=True)
class Scatter:
    """Size against KL of the ladder; ``front`` joins what no other one beats."""

    points: Sequence[Point]
    front: str
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    limit: Tick
    base: float


def score_bars(proof: Proof) -> list[Bar]:
    """Base, trained and device, of 100; what is no number has no bar."""
    axis = Axis(0, 100, BARS_FROM, BARS_TO)
    scores = (("base", "base", proof.base_score), ("torch", "trained", proof.torch_score))
    return [
        Bar(kind, name, axis(score) if math.isfinite(score) else BARS_FROM, figure(score, ".1f"))
        for kind, name, score in (*scores, ("device", "device", proof.device_score))
    ]


def score_ticks() -> list[Tick]:
    """Of the scores' axis."""
    axis = Axis(0, 100, BARS_FROM, BARS_TO)
    return [Tick(axis(value), f"{value}") for value in (0, 50, 100)]


def spans(proof: Proof, quality: Mapping[str, Any]) -> list[Span]:
    """Gain and loss against their limits, where they are numbers."""
    least, most = quality["min_gain"] or 0.0, quality["max_loss_points"]
    found = (
        _span("gain", proof.gain, proof.gain_interval, least, below=True, strict=quality["min_gain"] is None),
        _span("loss", proof.loss, proof.loss_interval, most, below=False),
    )
    return [span for span in found if span is not None]


def _span(
    name: str, value: float, ends: tuple[float, float], limit: float, *, below: bool, strict: bool = False
) -> Span | None:
    if not all(map(math.isfinite, (value, *ends))):
        return None
    low, high = min(0.0, limit, *ends), max(0.0, limit, *ends)
    room = max(0.08 * (high - low), 1.0)
    axis = Axis(low - room, high + room, LEFT, RIGHT)
    good = (ends[0] > limit if strict else ends[0] >= limit) if below else ends[0] <= limit
    refused = (LEFT, axis(limit)) if below else (axis(limit), RIGHT)
    ticks = [Tick(axis(at), f"{at:g}") for at in _round_steps(low - room, high + room)]
    return Span(name, f"{value:+.1f}", axis(ends[0]), axis(value), axis(ends[1]), refused, axis(0), ticks, good)


def _round_steps(low: float, high: float, most: int = 6) -> list[float]:
    """Round figures between two, at most so many."""
    scale = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(step for step in (scale, 2 * scale, 5 * scale, 10 * scale) if (high - low) / step <= most)
    return [round(step * n, 10) + 0.0 for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def kl_histogram(proof: Proof, limit: float, top: float = 34.0, base: float = 130.0) -> Histogram | None:
    """The KL of each token that has a number, on a log axis; None where no token has."""
    found = [kl for kl in proof.token_kl if math.isfinite(kl)]
    if not found:
        return None
    axis = Axis(LEAST_KL, MOST_KL, LEFT, RIGHT, log=True)
    counts, _ = np.histogram(np.clip(found, LEAST_KL, MOST_KL), np.geomspace(LEAST_KL, MOST_KL, BINS + 1))
    width = (RIGHT - LEFT) / BINS
    heights = [round(float(count) / counts.max() * (base - top), 1) for count in counts]
    bins = [(round(LEFT + n * width, 1), round(base - height, 1), height) for n, height in enumerate(heights)]
    ticks = [Tick(axis(value), text) for value, text in ((1e-6, "≤ 10⁻⁶"), (1e-4, "10⁻⁴"), (1e-2, "0.01"), (1, "1"))]
    mean = Tick(axis(proof.mean_kl), f"mean {proof.mean_kl:.4f}") if math.isfinite(proof.mean_kl) else None
    return Histogram(bins, round(width - 1, 1), ticks, mean, Tick(axis(limit), f"allowed mean {limit:g}"), base)


def ladder_scatter(ladder: Sequence[Mapping[str, Any]], chosen: str, limit: float) -> Scatter | None:
    """The ladder's quantisations that have figures; None where none has."""
    rungs = [Rung(**rung) for rung in ladder if rung["mean_kl"] is not None]
    if not rungs:
        return None
    left, top, base = 46.0, 12.0, 220.0
    sizes, kls = (
        [rung.size_mb for rung in rungs],
        [max(kl, LEAST_KL) for kl in (*(rung.mean_kl for rung in rungs), limit)],
    )
    room = max(max(sizes) - min(sizes), 0.02 * max(sizes)) * 0.1
    across = Axis(min(sizes) - 2.5 * room, max(sizes) + room, left + 8, RIGHT - 8)
    up = Axis(min(kls) / 2, max(kls) * 3, base, top, log=True)
    places = [(across(rung.size_mb), up(rung.mean_kl)) for rung in rungs]
    labels = _labels([rung.quantization for rung in rungs], places, left)
    points = [
        Point(x, y, Tick(at, rung.quantization), label_y, not rung.refused, rung.quantization == chosen)
        for rung, (x, y), (at, label_y) in zip(rungs, places, labels, strict=True)
    ]
    front = " ".join(f"{across(rung.size_mb)},{up(rung.mean_kl)}" for rung in pareto_front(rungs))
    x_ticks = [Tick(across(size), f"{size:g}") for size in _round_steps(across.low, across.high, 4)]
    decades = range(math.ceil(math.log10(up.low)), math.floor(math.log10(up.high)) + 1)
    y_ticks = [Tick(up(10.0**n), f"{10.0**n:g}") for n in decades]
    return Scatter(points, front, x_ticks, y_ticks, Tick(up(limit), f"allowed {limit:g}"), base)


def _labels(
    names: Sequence[str], points: Sequence[tuple[float, float]], places_from: float
) -> list[tuple[float, float]]:
    """A place for each label beside its point, where it covers no other label and no point as far as there is one."""
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in points]
    places: dict[int, tuple[float, float]] = {}
    for n, (x, y) in sorted(enumerate(points), key=lambda each: each[1][1]):
        name = names[n]
        width = SIGN * len(name)
        tries = [
            (side, y + 4 + LINE * shift)
            for shift in (0, -1, 1, -2, 2, -3, 3)
            for side in (x + 9, x - 9 - width, x - width / 2)
            if (shift or side != x - width / 2) and places_from < side and side + width < WIDTH
        ]
        at, line = next((each for each in tries if not _covers(each, width, taken)), tries[0])
        taken.append((at, line - LINE + 2, at + width, line + 2))
        places[n] = round(at, 1), round(line, 1)
    return [places[n] for n in range(len(points))]


def _covers(place: tuple[float, float], width: float, taken: Sequence[tuple[float, float, float, float]]) -> bool:
    left, bottom = place
    return any(
        left < right and left + width > start and bottom - LINE + 2 < low and bottom + 2 > high
        for start, high, right, low in taken
    )
