from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.evaluation.scoring import bootstrap_interval
from edgekit.proof.pairs import least_visible, mcnemar

POINTS = st.lists(st.floats(-100, 100), min_size=1, max_size=40)
NO_NUMBERS = st.sampled_from([math.nan, math.inf, -math.inf])


def test_mcnemar_is_the_sign_test_of_the_pairs_that_differ() -> None:
    assert mcnemar([True] * 5, [True] * 5) == 1.0
    assert mcnemar([True] * 6, [False] * 6) == pytest.approx(2 / 2**6)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_mcnemar_does_not_care_which_side_is_which(pairs: list[tuple[bool, bool]]) -> None:
    one, other = [a for a, _ in pairs], [b for _, b in pairs]
    assert mcnemar(one, other) == pytest.approx(mcnemar(other, one))
    assert 0 < mcnemar(one, other) <= 1


def test_mcnemar_of_nothing_is_no_number() -> None:
    assert math.isnan(mcnemar([], []))
    assert math.isnan(mcnemar([math.nan], [True]))  # type: ignore[list-item]


@given(POINTS, NO_NUMBERS, st.integers(0, 40))
def test_an_interval_of_what_is_no_number_is_none(values: list[float], bad: float, at: int) -> None:
    values.insert(at % (len(values) + 1), bad)
    assert all(map(math.isnan, bootstrap_interval(values)))
    assert math.isnan(least_visible(values))


def test_an_interval_of_nothing_is_none() -> None:
    assert all(map(math.isnan, bootstrap_interval([])))
    assert math.isnan(least_visible([]))
    assert math.isnan(least_visible([1.0], math.nan))


@given(POINTS, st.floats(0, 10))
def test_what_rows_can_show_is_more_than_the_limit_and_at_most_everything(values: list[float], beyond: float) -> None:
    assert beyond <= least_visible(values, beyond) <= 100


@pytest.mark.parametrize(("rows", "least"), [(1, 100.0), (12, 100 / 3), (48, 100 / 12)])
def test_rows_that_all_agree_still_can_t_show_less_than_a_few_whole_rows(rows: int, least: float) -> None:
    assert least_visible([0.0] * rows) == pytest.approx(least)


def test_more_rows_show_less() -> None:
    spread = [25.0, 0.0, 0.0, -25.0]
    found = [least_visible(spread * count, 1.0) for count in (1, 3, 12, 50)]
    assert found == sorted(found, reverse=True)


@given(st.integers(6, 60), st.sampled_from([25.0, 50.0, 100.0]), st.integers(0, 3))
def test_a_loss_beyond_what_is_visible_is_outside_its_own_noise(rows: int, step: float, seed: int) -> None:
    """So many rows that lose ``step`` that the mean reaches what the rows can show: the gate's own interval sees it."""
    changed = math.ceil(least_visible([step] + [0.0] * (rows - 1)) * rows / step)
    low, _ = bootstrap_interval([step] * changed + [0.0] * (rows - changed), seed=seed)
    assert low > 0 or changed * step / rows < 2 * step / rows * 1.96
