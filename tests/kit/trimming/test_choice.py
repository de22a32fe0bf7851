"""Which units stay: by what they give for what they cost, and never more than is allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.trimming.choice import Unit, chosen, search
from edgekit_devices.adapter_cost import Matrix
from edgekit_runtime.errors import InputError


def units(count: int) -> list[Unit]:
    return [Unit((f"layers.{n}.q_proj",), (Matrix(f"blk.{n}.attn_q.weight", 64, 64),)) for n in range(count)]


@given(
    st.lists(st.tuples(st.floats(-1, 1), st.floats(0.1, 5)), min_size=1, max_size=12),
    st.floats(0, 20),
)
def test_what_stays_is_within_what_is_allowed_and_each_of_it_gives_something(
    each: list[tuple[float, float]], allowed: float
) -> None:
    made = units(len(each))
    gains = {unit: gain for unit, (gain, _) in zip(made, each, strict=True)}
    costs = {unit: cost for unit, (_, cost) in zip(made, each, strict=True)}
    kept = chosen(gains, costs, allowed)
    assert sum(costs[unit] for unit in kept) <= allowed + 1e-9
    assert all(gains[unit] > 0 for unit in kept)
    left = allowed - sum(costs[unit] for unit in kept)
    assert all(costs[unit] > left or gains[unit] <= 0 for unit in made if unit not in kept)


def test_the_dear_and_useless_go_first() -> None:
    one, two, three = units(3)
    gains, costs = {one: 1.0, two: 2.0, three: 2.0}, {one: 1.0, two: 1.0, three: 4.0}
    assert chosen(gains, costs, 2.0) == [one, two]
    assert chosen(gains, costs, 1.0) == [two]


def test_each_round_asks_anew_what_is_left_contributes() -> None:
    made = units(16)
    asked: list[int] = []

    def measure(some: Sequence[Unit]) -> Mapping[Unit, float]:
        asked.append(len(some))
        return {unit: float(number) for number, unit in enumerate(made, 1) if unit in some}

    kept = search(made, dict.fromkeys(made, 1.0), 2.0, measure)
    assert kept == made[-2:]
    assert asked == sorted(asked, reverse=True)
    assert asked[0] == 16
    assert len(set(asked)) == 2


def test_a_budget_with_room_for_everything_leaves_nothing_out() -> None:
    made = units(3)
    assert search(made, dict.fromkeys(made, 1.0), 3.0, lambda some: pytest.fail("nothing is to be measured")) == made


def test_a_budget_with_no_room_is_refused() -> None:
    made = units(3)
    with pytest.raises(InputError, match="no room for a single matrix: lower decode_budget"):
        search(made, dict.fromkeys(made, 1.0), 0.5, lambda some: dict.fromkeys(some, 1.0))


@pytest.mark.parametrize("gain", [0.0, -1.0, float("nan")])
def test_an_adapter_that_gives_nothing_is_refused(gain: float) -> None:
    made = units(3)
    with pytest.raises(InputError, match="no matrix of the adapter lowers the loss"):
        search(made, dict.fromkeys(made, 1.0), 1.5, lambda some: dict.fromkeys(some, gain))
