"""How far two sets of logits are apart, and whether either is alive."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

AGREE_KL = 1e-3
AGREE_ERROR = 0.02
Logits = NDArray[np.floating]


@dataclass(frozen=True)
class Distance:
    """Of logits [tokens, vocabulary] from the expected ones.

    Attributes:
        kl: largest Kullback-Leibler divergence of a position, in nats.
        error: of the logits, relative to how much the expected ones differ within a position.
        at: the first position that is off, or None.
    """

    kl: float
    error: float
    at: int | None

    @property
    def agree(self) -> bool:
        """Whether both compute the same."""
        return self.kl < AGREE_KL and self.error < AGREE_ERROR


def distance(expected: Logits, found: Logits) -> Distance:
    """Compare; vocabularies may be padded differently.  Logits that aren't numbers are infinitely far."""
    width = min(expected.shape[-1], found.shape[-1])
    p, q = (np.asarray(each, np.float64)[:, :width] for each in (expected, found))
    if not is_alive(p) or not is_alive(q):
        return Distance(float("inf"), float("inf"), 0)
    log_p, log_q = log_softmax(p, axis=-1), log_softmax(q, axis=-1)
    kl = (np.exp(log_p) * (log_p - log_q)).sum(-1)
    error = _norm(_centered(p) - _centered(q)) / np.maximum(_norm(_centered(p)), 1e-9)
    off = np.flatnonzero((kl >= AGREE_KL) | (error >= AGREE_ERROR))
    return Distance(float(max(kl.max(), 0.0)), float(error.max()), int(off[0]) if len(off) else None)


def moved(before: Logits, after: Logits) -> float:
    """How far logits have moved, relative to how much they differ within a position."""
    size = float(np.linalg.norm(_centered(before)))
    return float(np.linalg.norm(_centered(np.asarray(after) - np.asarray(before)))) / max(size, 1e-9)


def is_alive(logits: Logits) -> bool:
    """Finite, and neither the same for all tokens nor at all positions."""
    if not np.isfinite(logits).all():
        return False
    return bool(np.std(logits, axis=-1).min() > 1e-5 and np.std(_centered(logits), axis=0).max() > 1e-5)


def _centered(logits: Logits) -> Logits:
    values: Logits = logits - logits.mean(-1, keepdims=True)
    return values


def _norm(values: Logits) -> Logits:
    lengths: Logits = np.linalg.norm(values, axis=-1)
    return lengths
