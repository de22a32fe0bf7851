from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.examples import inspection
from edgekit.proof import plots
from edgekit.proof.compare import Proof
from edgekit.proof.plots import Axis, Point
from tests.kit.proof.samples import LADDER, json_proof

QUALITY = {"min_gain": None, "max_loss_points": 1.0}


@pytest.fixture(scope="module")
def proof() -> Proof:
    return json_proof("inspection", inspection, 12)


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_an_axis_keeps_order_and_its_ends(one: float, other: float) -> None:
    axis = Axis(-10, 10, 12, 348)
    assert 12 <= axis(one) <= 348
    assert (one <= other) <= (axis(one) <= axis(other))


def test_what_is_no_number_has_no_bar_no_span_and_no_bin(proof: Proof) -> None:
    broken = replace(proof, device_score=math.nan, gain=math.nan, token_kl=(math.nan,), mean_kl=math.nan)
    assert plots.score_bars(broken)[2].value == "no number"
    assert plots.score_bars(broken)[2].to == plots.BARS_FROM
    assert [span.name for span in plots.spans(broken, QUALITY)] == ["loss"]
    assert plots.kl_histogram(broken, 0.05) is None


@pytest.mark.parametrize(("ends", "good"), [((0.1, 9.0), True), ((0.0, 9.0), False), ((-1.0, 9.0), False)])
def test_a_gain_is_good_where_the_gate_says_so(proof: Proof, ends: tuple[float, float], good: bool) -> None:
    span = plots.spans(replace(proof, gain=5.0, gain_interval=ends), QUALITY)[0]
    assert span.good is good
    assert (span.low <= span.refused[1]) is not good  # the shaded part holds the low end


@pytest.mark.parametrize(("ends", "good"), [((1.0, 9.0), True), ((1.5, 9.0), False)])
def test_a_loss_is_good_where_the_gate_says_so(proof: Proof, ends: tuple[float, float], good: bool) -> None:
    span = plots.spans(replace(proof, loss=5.0, loss_interval=ends), QUALITY)[1]
    assert span.good is good
    assert (span.low > span.refused[0]) is not good


@pytest.mark.parametrize("limit", [0.0, 0.05, 100.0])
def test_all_tokens_are_in_the_histogram(proof: Proof, limit: float) -> None:
    drawn = plots.kl_histogram(replace(proof, token_kl=(0.0, 1e-3, 1e9)), limit)
    assert drawn is not None
    assert sum(height > 0 for _, _, height in drawn.bins) == 3
    assert plots.LEFT <= drawn.limit.at <= plots.RIGHT


def _box(point: Point) -> tuple[float, float, float, float]:
    label = point.label
    return label.at, point.label_y - 10, label.at + plots.SIGN * len(label.text), point.label_y


@pytest.mark.parametrize("limit", [0.0, 0.05])
def test_labels_of_the_ladder_do_not_cover_each_other(limit: float) -> None:
    ladder = [dict(zip(("quantization", "size_mb", "mean_kl", "decode_tps"), rung, strict=True)) for rung in LADDER]
    drawn = plots.ladder_scatter([rung | {"refused": []} for rung in ladder], "Q6_K", limit)
    assert drawn is not None
    for one, other in itertools.combinations(map(_box, drawn.points), 2):
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
    assert all(_box(point)[0] > 0 and _box(point)[2] <= plots.WIDTH for point in drawn.points)
    assert [point.label.text for point in drawn.points if point.chosen] == ["Q6_K"]


def test_a_ladder_without_figures_has_no_picture() -> None:
    rung = {"quantization": "Q4_0", "size_mb": 5.0, "mean_kl": None, "decode_tps": 9.0, "refused": ["no numbers"]}
    assert plots.ladder_scatter([rung], "Q4_0", 0.05) is None
    one = plots.ladder_scatter([rung | {"mean_kl": 0.01}], "Q4_0", 0.05)
    assert one is not None
    assert len(one.points) == 1
