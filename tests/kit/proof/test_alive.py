"""Distributions with an adapter against those without: no figure is made of what is no number."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.special import log_softmax

from edgekit.proof.alive import (
    DEAD_BELOW,
    Change,
    Likeliest,
    likeliest_kl,
    mean_kl,
    reach,
    token_kl,
)

Array = NDArray[np.float32]

LOGITS = arrays(np.float32, (3, 8), elements=st.floats(-30, 30, width=32))
NO_NUMBERS = st.sampled_from([math.nan, math.inf, -math.inf])
PLACES = st.tuples(st.integers(0, 2), st.integers(0, 7))


@given(LOGITS, LOGITS)
def test_kl_is_zero_of_the_same_and_never_negative(one: Array, other: Array) -> None:
    p, q = log_softmax(one, axis=-1), log_softmax(other, axis=-1)
    assert token_kl(p, p) == pytest.approx(0, abs=1e-6)
    assert (token_kl(p, q) > -1e-4).all()


@given(LOGITS, LOGITS)
def test_some_tokens_tell_no_more_than_all(one: Array, other: Array) -> None:
    p, q = log_softmax(one, axis=-1), log_softmax(other, axis=-1)
    whole = token_kl(p, q)
    assert (likeliest_kl(p[:, :4], q[:, :4]) <= whole + 0.1).all()  # what all others have is rounded


@given(LOGITS, LOGITS, PLACES, NO_NUMBERS)
def test_a_change_that_is_no_number_is_not_alive(one: Array, other: Array, place: tuple[int, int], bad: float) -> None:
    one[place] = bad
    p, q = log_softmax(one, axis=-1), log_softmax(other, axis=-1)
    with np.errstate(invalid="ignore"):
        change = Change.of([token_kl(p, q)], [float(np.abs(p - q).max())])
    assert not change.alive


@given(st.lists(st.floats(0, 5), min_size=1, max_size=6), NO_NUMBERS, st.integers(0, 6))
def test_one_token_that_is_no_number_is_not_averaged_away(values: list[float], bad: float, at: int) -> None:
    values.insert(at % (len(values) + 1), bad)
    assert not math.isfinite(mean_kl([np.array(values)]))


def test_nothing_is_no_number() -> None:
    assert math.isnan(mean_kl([]))
    assert math.isnan(mean_kl([np.empty(0)]))
    assert not Change.of([], []).alive


def test_only_rounding_is_taken_for_zero() -> None:
    assert mean_kl([np.array([-1e-6])]) == 0
    assert mean_kl([np.array([-0.5])]) == -0.5


@pytest.mark.parametrize(
    ("kl", "largest", "alive"),
    [
        (0.0, 0.0, False),
        (1e-12, DEAD_BELOW, False),
        (1e-9, 0.001, True),
        (math.nan, 0.5, False),
        (0.5, math.nan, False),
        (math.inf, math.inf, False),
    ],
)
def test_alive_is_what_moves_a_logit(kl: float, largest: float, alive: bool) -> None:
    assert Change(kl, largest).alive is alive


def _distributions(seed: int, shift: float) -> tuple[Array, Array]:
    chosen = np.random.default_rng(seed)
    bare = chosen.normal(0, 2, (40, 100)).astype(np.float32)
    adapted = bare + shift * chosen.normal(0, 1, bare.shape).astype(np.float32)
    return log_softmax(adapted, axis=-1), log_softmax(bare, axis=-1)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_reach_is_the_share_of_the_change_that_arrives(share: float) -> None:
    adapted, bare = _distributions(1, 1.0)
    kept = Likeliest.of(adapted, bare)
    noise = np.random.default_rng(2).normal(0, 0.05, adapted.shape).astype(np.float32)
    device = log_softmax(bare + share * (adapted - bare) + noise, axis=-1)
    found = reach([kept], [kept.at(device)], [kept.bare])
    assert found.value == pytest.approx(share, abs=0.05)
    assert found.interval[0] <= found.value <= found.interval[1]


@given(PLACES, NO_NUMBERS)
def test_reach_of_what_is_no_number_is_none(place: tuple[int, int], bad: float) -> None:
    adapted, bare = _distributions(1, 1.0)
    kept = Likeliest.of(adapted, bare)
    device = kept.at(adapted).copy()
    device[place] = bad
    with np.errstate(invalid="ignore"):
        found = reach([kept], [device], [kept.bare])
    assert math.isnan(found.value)
    assert math.isnan(found.interval[0])


def test_reach_of_a_dead_adapter_is_no_number() -> None:
    adapted, _ = _distributions(1, 1.0)
    kept = Likeliest.of(adapted, adapted)
    assert math.isnan(reach([kept], [kept.adapted], [kept.bare]).value)
