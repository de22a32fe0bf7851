"""What the probe finds of a base is told before a training, in words that name it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from base_families import FAMILIES
from edgekit.bases.probe.compare import distance
from edgekit.bases.probe.findings import Findings, findings
from edgekit.training.engine_fit import check_base, check_targets
from edgekit_exporters.base import Base
from edgekit_runtime.errors import InputError


def base_of(kind: str, folder: Path, **changes: Any) -> Base:
    config = next(family for family in FAMILIES if family.kind == kind).raw | changes
    (folder / "config.json").write_text(json.dumps(config))
    return Base(kind, f"{kind}-000000000000", folder)


def test_a_window_that_the_engine_lacks_bounds_the_rows(tmp_path: Path) -> None:
    base = base_of("phi3", tmp_path)
    found = findings(base.folder)
    assert found.agrees
    assert found.window_ignored
    check_base(base, found, 2047)
    with pytest.raises(InputError, match="looks back 2047 tokens") as caught:
        check_base(base, found, 2048)
    assert caught.value.hint
    assert "max_length: 2047" in caught.value.hint


def test_a_setting_that_the_engine_does_not_have_is_refused(tmp_path: Path) -> None:
    base = base_of("qwen3_moe", tmp_path, norm_topk_prob=False)
    with pytest.raises(InputError, match="computes something else than transformers"):
        check_base(base, findings(base.folder), 100)


def test_a_layer_that_the_engine_cannot_adapt_is_refused_by_name_and_left_out_of_all(tmp_path: Path) -> None:
    found = findings(base_of("gemma4_text", tmp_path).folder)
    assert found.unknown is None
    assert "per_layer_model_projection" in found.left_out
    with pytest.raises(InputError, match="ignores an adapter of model.per_layer_model_projection"):
        check_targets(["q_proj", "per_layer_model_projection"], found)
    with pytest.raises(InputError, match="per_layer_model_projection"):
        check_targets(r".*projection", found)
    check_targets(["q_proj"], found)
    check_targets("q/v", found)


def test_what_is_left_out_fits_no_layer_that_stays() -> None:
    found = Findings(usable=("l.0.a.gate", "l.0.b.proj"), ignored=("l.0.c.gate",), routers=("l.0.d.router",))
    assert found.left_out == ("c.gate", "router")


def test_dead_logits_are_far_from_anything() -> None:
    alive = np.random.default_rng(0).normal(size=(5, 20))
    assert distance(alive, alive).agree
    for dead in (np.full((5, 20), np.nan), np.zeros((5, 20))):
        assert not distance(alive, dead).agree
        assert not distance(dead, dead).agree
