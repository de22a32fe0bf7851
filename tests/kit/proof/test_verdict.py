from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.project import Gate
from edgekit.proof.compare import Proof, RowProof
from edgekit.proof.verdict import (
    at_least,
    at_most,
    dead,
    least_gain,
    least_loss,
    not_good,
    refusals,
    remedy,
    unfaithful,
)

NO_NUMBERS = [math.nan, math.inf, -math.inf]


def _proof(**figures: object) -> Proof:
    """A proof that nothing speaks against, but for ``figures``."""
    plain: dict[str, object] = dict.fromkeys(Proof.__dataclass_fields__, 0.0)
    plain |= {
        "adapter": "a",
        "runs_on": "Q4_0",
        "quantization": "Q4_0",
        "merged": False,
        "metric": "field_accuracy",
        "rows": (),
        "token_kl": (),
        "other_prompts": 0,
        "loss_interval": (-2.0, 2.0),
        "device_score": 60.0,
        "gain": 50.0,
        "gain_interval": (40.0, 60.0),
        "torch_change": 0.5,
        "torch_largest": 3.0,
        "device_change": 0.5,
        "device_largest": 3.0,
        "reach": 1.0,
        "reach_interval": (0.9, 1.1),
    }
    return Proof(**(plain | figures))  # type: ignore[arg-type]


def _row(torch: float, device: float, base: float) -> RowProof:
    return RowProof("eval.jsonl:1", "", "", "", torch, device, None, "", base)


def test_a_loss_within_noise_passes_and_one_beyond_it_does_not() -> None:
    gate = Gate(max_loss_points=1.0)
    assert refusals(_proof(loss=4.0, loss_interval=(0.5, 7.5)), gate) == []
    assert "loses 4.0 points" in refusals(_proof(loss=4.0, loss_interval=(1.5, 6.5)), gate)[0]


@pytest.mark.parametrize("kl", [0.06, -0.01, *NO_NUMBERS])
def test_a_kl_that_is_too_large_or_no_number_is_refused(kl: float) -> None:
    assert "mean KL" in refusals(_proof(mean_kl=kl), Gate(max_mean_kl=0.05))[0]


@pytest.mark.parametrize("bad", NO_NUMBERS)
@pytest.mark.parametrize(
    "figures",
    [
        {"mean_kl": "bad"},
        {"loss_interval": ("bad", "bad")},
        {"device_score": "bad"},
        {"gain_interval": ("bad", "bad")},
        {"torch_change": "bad"},
        {"torch_largest": "bad"},
        {"device_change": "bad"},
        {"device_largest": "bad"},
        {"merged": True, "reach_interval": ("bad", "bad")},
    ],
    ids=lambda figures: list(figures)[-1],
)
def test_no_verdict_lets_pass_what_is_no_number(figures: dict[str, object], bad: float) -> None:
    filled = {
        key: bad if value == "bad" else (bad, bad) if value == ("bad", "bad") else value
        for key, value in figures.items()
    }
    proof, gate = _proof(**filled), Gate(min_score=50)
    assert refusals(proof, gate) or dead(proof)


@given(st.floats(allow_nan=True, allow_infinity=True), st.floats(-1e9, 1e9))
def test_limits_hold_for_numbers_alone(value: float, limit: float) -> None:
    assert at_most(value, limit) is (math.isfinite(value) and value <= limit)
    assert at_least(value, limit) is (math.isfinite(value) and value >= limit)


@pytest.mark.parametrize(
    ("figures", "where"),
    [
        ({}, None),
        ({"torch_change": 0.0, "torch_largest": 0.0}, "in torch"),
        ({"device_change": 0.0, "device_largest": 0.0}, "on the device engine"),
        (
            {"merged": True, "device_change": 0.02, "reach": 0.01, "reach_interval": (-0.01, 0.03)},
            "on the device engine",
        ),
        (
            {"merged": True, "device_change": 9.0, "reach": 0.01, "reach_interval": (-0.01, 0.03)},
            None,
        ),  # broken instead
        ({"merged": True, "reach": 0.5, "reach_interval": (-1.0, 2.0)}, None),  # nobody can tell
    ],
)
def test_a_dead_adapter_is_told_by_side(figures: dict[str, object], where: str | None) -> None:
    assert dead(_proof(**figures)) == where


@pytest.mark.parametrize("interval", [(-0.01, 0.03), (-1.0, 2.0), (math.nan, math.nan)])
def test_a_merged_change_that_may_not_have_arrived_is_refused(interval: tuple[float, float]) -> None:
    proof = _proof(merged=True, device_change=9.0, reach_interval=interval)
    assert "arrives on the device" in unfaithful(proof, Gate())[0]


@pytest.mark.parametrize(
    ("gate", "gain", "interval", "good"),
    [
        (Gate(), 5.0, (0.1, 10.0), True),
        (Gate(), 5.0, (0.0, 10.0), False),
        (Gate(), 0.0, (0.0, 0.0), False),
        (Gate(), -3.0, (-9.0, 3.0), False),
        (Gate(min_gain=0), 0.0, (0.0, 0.0), True),
        (Gate(min_gain=5), 9.0, (5.0, 12.0), True),
        (Gate(min_gain=5), 9.0, (4.0, 14.0), False),
        (Gate(min_gain=-100), -100.0, (-100.0, -100.0), True),
        (Gate(min_gain=-100), math.nan, (math.nan, math.nan), False),
    ],
)
def test_a_gain_counts_at_the_low_end_of_its_interval(
    gate: Gate, gain: float, interval: tuple[float, float], good: bool
) -> None:
    assert (not_good(_proof(gain=gain, gain_interval=interval), gate) == []) is good


def test_a_score_can_be_asked_for() -> None:
    assert not_good(_proof(device_score=79.0), Gate(min_score=80))[0].startswith("it scores 79.0 of 100 on the device")
    assert not_good(_proof(device_score=80.0), Gate(min_score=80)) == []


def test_the_remedy_for_another_precision_names_the_one_to_train_at() -> None:
    lossy = {"mean_kl": 1.0}
    assert "base_precision: gguf and export.quantize: Q4_0" in remedy(_proof(runs_on="nf4", **lossy), Gate())
    assert "base_precision: onnx-int4" in remedy(_proof(runs_on="nf4", quantization="int4", **lossy), Gate())
    assert "export with --quantize int8" in remedy(_proof(runs_on="int4", quantization="int4", **lossy), Gate())
    assert "chat template" in remedy(_proof(other_prompts=3), Gate())


def test_the_remedy_for_an_adapter_that_is_not_good_is_to_train_it() -> None:
    rows = tuple(_row(1.0, 1.0, base) for base in (0.0, 1.0, 1.0, 1.0))
    assert "train longer" in remedy(_proof(gain=0.0, gain_interval=(0.0, 0.0)), Gate())
    said = remedy(_proof(gain=25.0, gain_interval=(0.0, 75.0), rows=rows), Gate())
    assert "ask more evaluation rows (gate.rows): these 4" in said
    assert "--accept-loss" in said


def test_twelve_rows_say_what_they_could_not_have_seen() -> None:
    """5.5 points of loss pass as noise: the smallest loss that would not have is told."""
    losses = [25.0, 25.0, 16.0, *[0.0] * 9]
    rows = tuple(_row(1.0, 1.0 - loss / 100, 0.0) for loss in losses)
    assert least_loss(_proof(rows=rows), Gate()) > 5.5
    assert math.isnan(least_gain(_proof()))
