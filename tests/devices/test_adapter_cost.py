"""What an adapter costs in decode: more of anything never costs less."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit_devices.adapter_cost import STEP, Matrix, Shape, adapter_work, decode_share, extra_s
from edgekit_devices.profiles import load_profile, profile_names
from edgekit_devices.speed import Model

SIDES = st.integers(32, 4096)
MATRICES = st.lists(st.builds(Matrix, st.just("blk.0.attn_q.weight"), SIDES, SIDES), min_size=1, max_size=8)
MODEL = Model("Q4_0", 90_000_000, 80_000_000, 1e8, 30, 576, 384, 2048)


@given(st.sampled_from(profile_names()), MATRICES, SIDES, SIDES, st.integers(1, 64))
def test_another_matrix_or_a_wider_one_costs_more(
    device: str, matrices: list[Matrix], inputs: int, outputs: int, rank: int
) -> None:
    profile, shape = load_profile(device), Shape(tuple(matrices), rank)
    more = Shape((*matrices, Matrix("blk.1.ffn_up.weight", inputs, outputs)), rank)
    assert extra_s(profile, shape) < extra_s(profile, more)
    wider = replace(matrices[0], outputs=matrices[0].outputs + 32)
    assert extra_s(profile, shape) < extra_s(profile, Shape((wider, *matrices[1:]), rank))


@given(st.sampled_from(profile_names()), MATRICES, st.integers(1, 8), st.integers(1, 8))
def test_among_whole_steps_a_higher_rank_costs_more(device: str, matrices: list[Matrix], one: int, other: int) -> None:
    profile = load_profile(device)
    low, high = sorted((one, other))
    cost = [extra_s(profile, Shape(tuple(matrices), STEP * each)) for each in (low, high)]
    assert (cost[0] < cost[1]) == (low < high)


@given(MATRICES, st.integers(1, 64))
def test_a_share_of_the_bases_speed_is_one_and_says_that_it_is_an_estimate(matrices: list[Matrix], rank: int) -> None:
    share = decode_share(load_profile("raspberry-pi-5"), MODEL, [Shape(tuple(matrices), rank)], 256)
    assert 0 < share.low < share.value < share.high < 1
    assert share.basis == "estimated"
    none = decode_share(load_profile("raspberry-pi-5"), MODEL, [Shape((), rank)], 256)
    assert none.low == none.value == none.high == 1


@pytest.mark.parametrize(
    ("features", "rank", "singles"),
    [
        (("avx2",), 16, 0),  # the runtime fills it up
        (("avx2",), 40, 8),
        ((), 16, 16),
        (("asimd", "asimddp", "asimdhp"), 16, 16),
        (("asimd",), 16, 0),
    ],
)
def test_ranks_below_a_step_of_the_dot_product_leave_numbers_over(
    features: tuple[str, ...], rank: int, singles: int
) -> None:
    work = adapter_work(Shape((Matrix("blk.0.attn_q.weight", 576, 192),), rank), features)
    assert work.singles == singles * 192


def test_a_tensors_name_says_layer_and_kind() -> None:
    matrix = Matrix("blk.12.ffn_down.weight", 1536, 576)
    assert (matrix.layer, matrix.kind) == (12, "ffn_down")
