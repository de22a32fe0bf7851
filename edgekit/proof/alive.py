"""Whether an adapter does anything: the distributions with it against those of its base."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

from edgekit.evaluation.scoring import BOOTSTRAP_SAMPLES, CONFIDENCE

Logprobs = NDArray[np.float32]  # [answer tokens, vocabulary]

# A dead adapter adds exactly nothing; this much rounding alone could make of that.
DEAD_BELOW = 1e-5
LIKELIEST = 64  # tokens whose log-probabilities are kept at full precision, at each place
LEAST_REST = 1e-6  # a probability that float32 still tells from 1 minus the others
KL_ROUNDING = 1e-3  # how far below zero rounding takes a mean KL


@dataclass(frozen=True)
class Change:
    """How far an adapter moves what its base says.

    Attributes:
        kl: mean KL(adapter || base) of the reference answers' tokens, nats.
        largest: the largest difference of any token's log-probability.
    """

    kl: float
    largest: float

    @property
    def alive(self) -> bool:
        """Whether it moves anything; a figure that is no number says no."""
        return math.isfinite(self.kl) and math.isfinite(self.largest) and self.largest > DEAD_BELOW

    @classmethod
    def of(cls, kls: Sequence[NDArray[Any]], largest: Sequence[float]) -> Change:
        """Of all rows: KL of each token, and the largest difference of each row."""
        return cls(mean_kl(kls), float(np.max(largest)) if largest else math.nan)


@dataclass(frozen=True)
class Likeliest:
    """The likeliest tokens at each place of one row's reference answer, as torch has them.

    Attributes:
        tokens: ids [places, LIKELIEST].
        adapted: their log-probabilities with the adapter.
        bare: without it.
    """

    tokens: NDArray[Any]
    adapted: Logprobs
    bare: Logprobs

    @classmethod
    def of(cls, adapted: Logprobs, bare: Logprobs) -> Likeliest:
        """The likeliest with the adapter."""
        count = min(LIKELIEST, adapted.shape[-1])
        tokens = np.argpartition(-adapted, count - 1)[:, :count]
        return cls(tokens, np.take_along_axis(adapted, tokens, -1), np.take_along_axis(bare, tokens, -1))

    def at(self, logprobs: Logprobs) -> Logprobs:
        """What other log-probabilities, [places, vocabulary], say of these tokens."""
        return np.take_along_axis(logprobs, self.tokens, -1)


@dataclass(frozen=True)
class Reach:
    """Which share of the adapter's change arrives on the device: 1 all of it, 0 none; with its 95 % interval."""

    value: float
    interval: tuple[float, float]


def reach(likeliest: Sequence[Likeliest], adapted: Sequence[Logprobs], bare: Sequence[Logprobs]) -> Reach:
    """Project the device's change of the base on that of torch, weighted by probability.

    Args:
        likeliest: what torch says of each row.
        adapted: the device's log-probabilities of the same tokens with the adapter.
        bare: those that the adapter's change is taken from: of the device's base, or of torch's.
    """
    along, whole = [], []
    for row, device, base in zip(likeliest, adapted, bare, strict=True):
        weights = np.exp(row.adapted - row.adapted.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        wanted = _centred(row.adapted - row.bare, weights)
        found = _centred(device - base, weights)
        along.append((weights * wanted * found).sum(-1))
        whole.append((weights * wanted * wanted).sum(-1))
    return _ratio(np.concatenate(along).astype(np.float64), np.concatenate(whole).astype(np.float64))


def token_kl(one: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
    """KL(one || other) at each place, of log-probabilities [places, tokens]; what one never says counts nothing."""
    share = np.exp(one)
    with np.errstate(invalid="ignore"):
        terms = np.where(share == 0, 0.0, share * (one - other))
    result: NDArray[Any] = terms.sum(-1)
    return result


def likeliest_kl(one: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
    """KL(one || other) of some tokens and of all others taken together: never more than that of all tokens."""
    return token_kl(_with_rest(one), _with_rest(other))


def mean_kl(kls: Sequence[NDArray[Any]]) -> float:
    """Over all tokens; a hair below zero is rounding, a NaN stays one, and no token at all is one."""
    tokens = np.concatenate(kls) if kls else np.empty(0)
    if not tokens.size:
        return math.nan
    mean = float(tokens.mean(dtype=np.float64))
    return 0.0 if -KL_ROUNDING < mean < 0 else mean


def _with_rest(logprobs: NDArray[Any]) -> NDArray[Any]:
    rest = np.maximum(1 - np.exp(logprobs.astype(np.float64)).sum(-1, keepdims=True), LEAST_REST)
    return np.concatenate([logprobs, np.log(rest)], -1)


def _centred(values: NDArray[Any], weights: NDArray[Any]) -> NDArray[Any]:
    result: NDArray[Any] = values - (weights * values).sum(-1, keepdims=True)
    return result


def _ratio(along: NDArray[Any], whole: NDArray[Any]) -> Reach:
    """The ratio of two sums, with a bootstrap interval over tokens."""
    if not (np.isfinite(along).all() and np.isfinite(whole).all() and whole.sum() > 0):
        return Reach(math.nan, (math.nan, math.nan))
    found = bootstrap(
        (along, whole),
        _share,
        n_resamples=BOOTSTRAP_SAMPLES,
        batch=100,  # of arrays [resamples, tokens]
        confidence_level=CONFIDENCE,
        method="percentile",
        paired=True,
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Reach(float(along.sum() / whole.sum()), (float(found.low), float(found.high)))


def _share(along: NDArray[Any], whole: NDArray[Any], axis: int = -1) -> NDArray[Any]:
    total = whole.sum(axis)
    share: NDArray[Any] = np.divide(along.sum(axis), total, out=np.zeros_like(total), where=total > 0)
    return share
