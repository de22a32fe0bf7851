"""What the probe finds of a base is told before a training, in words that name it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from base_families import FAMILIES
from edgekit.bases.probe.findings import findings
from edgekit.project import load_project
from edgekit.training.engine_fit import check_adapted, check_base, check_targets, layers_left_out
from edgekit.training.lora import lora_config
from edgekit.training.targets import Targets
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
    base = base_of("gemma4_text", tmp_path)
    found = findings(base.folder)
    assert found.unknown is None
    assert "per_layer_model_projection" in found.left_out
    with pytest.raises(InputError, match="ignores an adapter of model.per_layer_model_projection"):
        check_targets(["q_proj", "per_layer_model_projection"], found)
    with pytest.raises(InputError, match="per_layer_model_projection"):
        check_targets(r".*projection", found)
    check_targets(["q_proj"], found)
    check_targets("q/v", found)
    with pytest.raises(InputError, match="no place for a change of model.embed_tokens_per_layer"):
        check_targets(["embed_tokens_per_layer"], found)
    check_adapted(["model.layers.29.self_attn.q_proj"], base)
    with pytest.raises(InputError, match="ignores an adapter of model.per_layer_model_projection"):
        check_adapted(["model.per_layer_model_projection"], base)


def test_experts_and_both_ends_are_asked_too_and_are_none_of_all_linear(tmp_path: Path) -> None:
    found = findings(base_of("qwen3_moe", tmp_path).folder)
    assert {name.rpartition(".")[2] for name in found.experts} == {"gate_up_proj", "down_proj"}
    assert {*found.experts, *found.ends} <= {*found.usable}
    assert found.ends == ("model.embed_tokens", "lm_head")
    assert found.left_out == ()
    check_targets(["experts.down_proj", "lm_head", "embed_tokens"], found)


def test_a_base_that_cannot_be_checked_is_trained_and_that_is_told(
    tmp_path: Path, tiny_project: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "novel"}))
    project = load_project(tiny_project())
    base = Base("novel", "novel-000000000000", tmp_path)
    with caplog.at_level(logging.WARNING):
        assert layers_left_out(project, project.adapter(), base, 100) == ()
    assert "not checked before training whether llama.cpp computes novel as torch does: no small model" in caplog.text
    assert "export compares both on the evaluation rows" in caplog.text


def test_all_linear_leaves_out_and_tells_what_the_engine_ignores(
    tmp_path: Path, tiny_project: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    base = base_of("gemma4_text", tmp_path)
    project = load_project(tiny_project())
    adapter = project.adapter()
    with caplog.at_level(logging.WARNING):
        left_out = layers_left_out(project, adapter, base, 100)
    assert "targets: all-linear leaves out per_layer_model_projection: llama.cpp ignores adapters there" in caplog.text
    assert lora_config(adapter, Targets("all-linear", []), left_out=left_out).exclude_modules == {
        "per_layer_model_projection"
    }


def test_onnx_runtime_is_asked_where_it_runs_the_adapter(tmp_path: Path, tiny_project: Callable[..., Path]) -> None:
    pytest.importorskip("onnx_ir", reason="the extra is not installed: pip install 'edgekit[onnx]'")
    project = load_project(tiny_project(export={"format": "onnx"}))
    base = base_of("mistral", tmp_path, sliding_window=64)
    assert layers_left_out(project, project.adapter(), base, 64) == ()
    with pytest.raises(InputError, match="ONNX Runtime has no such window for it") as caught:
        layers_left_out(project, project.adapter(), base, 65)
    assert caught.value.hint
    assert "max_length: 64" in caught.value.hint


def test_a_base_that_the_onnx_builder_does_not_know_is_refused_before_training(
    tmp_path: Path, tiny_project: Callable[..., Path]
) -> None:
    pytest.importorskip("onnx_ir", reason="the extra is not installed: pip install 'edgekit[onnx]'")
    project = load_project(tiny_project(export={"format": "onnx"}))
    with pytest.raises(InputError, match="doesn't know Olmo2ForCausalLM") as caught:
        layers_left_out(project, project.adapter(), base_of("olmo2", tmp_path), 100)
    assert caught.value.exit_code == 3
