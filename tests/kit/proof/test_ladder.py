from __future__ import annotations

import math
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from edgekit.proof.ladder import Rung, pareto_front

RUNGS = st.lists(
    st.builds(
        Rung,
        quantization=st.sampled_from(["Q8_0", "Q4_0"]),
        size_mb=st.integers(1, 5).map(float),
        mean_kl=st.integers(0, 5).map(float),
        decode_tps=st.integers(1, 5).map(float),
        refused=st.just(()),
    ),
    min_size=1,
    max_size=8,
)


def _as_good(one: Rung, other: Rung) -> bool:
    return one.mean_kl <= other.mean_kl and one.size_mb <= other.size_mb and one.decode_tps >= other.decode_tps


@given(RUNGS)
def test_every_rung_is_on_the_front_or_beaten_by_one_that_is(rungs: list[Rung]) -> None:
    front = pareto_front(rungs)
    assert front
    assert all(any(_as_good(kept, rung) for kept in front) for rung in rungs)


@given(RUNGS)
def test_none_on_the_front_beats_another(rungs: list[Rung]) -> None:
    front = pareto_front(rungs)
    assert not [1 for one in front for other in front if _as_good(one, other) and not _as_good(other, one)]


@given(RUNGS, st.sampled_from([math.nan, math.inf]), st.sampled_from(["mean_kl", "size_mb", "decode_tps"]))
def test_a_figure_that_is_no_number_is_not_on_the_front(rungs: list[Rung], bad: float, figure: str) -> None:
    broken = replace(rungs[0], **{figure: bad})
    assert pareto_front([broken, *rungs]) == pareto_front(rungs)
    assert pareto_front([broken]) == []
