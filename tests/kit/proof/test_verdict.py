from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.project import Gate
from edgekit.proof.compare import Proof, mcnemar
from edgekit.proof.verdict import refusals, remedy


def _proof(**figures: object) -> Proof:
    plain: dict[str, object] = dict.fromkeys(Proof.__dataclass_fields__, 0.0)
    plain |= {
        "adapter": "a",
        "runs_on": "Q4_0",
        "quantization": "Q4_0",
        "metric": "field_accuracy",
        "rows": (),
        "token_kl": (),
    }
    return Proof(**(plain | {"loss_interval": (-2.0, 2.0), "other_prompts": 0} | figures))  # type: ignore[arg-type]


def test_a_loss_within_noise_passes_and_one_beyond_it_does_not() -> None:
    gate = Gate(max_loss_points=1.0)
    assert refusals(_proof(loss=4.0, loss_interval=(0.5, 7.5)), gate) == []
    assert "loses 4.0 points" in refusals(_proof(loss=4.0, loss_interval=(1.5, 6.5)), gate)[0]


@pytest.mark.parametrize("kl", [0.06, math.nan, math.inf])
def test_a_kl_that_is_too_large_or_no_number_is_refused(kl: float) -> None:
    assert "mean KL" in refusals(_proof(mean_kl=kl), Gate(max_mean_kl=0.05))[0]


def test_the_remedy_for_another_precision_names_the_one_to_train_at() -> None:
    assert "base_precision: gguf and export.quantize: Q4_0" in remedy(_proof(runs_on="nf4"))
    assert "base_precision: onnx-int4" in remedy(_proof(runs_on="nf4", quantization="int4"))
    assert "export with --quantize int8" in remedy(_proof(runs_on="int4", quantization="int4"))
    assert "chat template" in remedy(_proof(other_prompts=3))


def test_mcnemar_is_the_sign_test_of_the_pairs_that_differ() -> None:
    assert mcnemar([True] * 5, [True] * 5) == 1.0
    assert mcnemar([True] * 6, [False] * 6) == pytest.approx(2 / 2**6)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_mcnemar_does_not_care_which_side_is_which(pairs: list[tuple[bool, bool]]) -> None:
    one, other = [a for a, _ in pairs], [b for _, b in pairs]
    assert mcnemar(one, other) == pytest.approx(mcnemar(other, one))
    assert 0 < mcnemar(one, other) <= 1
