"""Devices serve no more context than the engine computes as the base was trained."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.bases.probe.window import exact_context
from edgekit.bases.resolve import resolve_base
from edgekit.exporting.export import export
from edgekit.project import load_project
from edgekit.targets.subject import subject_of_bundle
from edgekit_runtime import Runtime
from edgekit_runtime.errors import UsageError


def test_a_window_that_the_engine_lacks_bounds_the_context_of_a_bundle(
    tiny_project: Callable[..., Path],
    random_lora: Callable[[Path], None],
    tiny_chat_base: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    base = tmp_path / "tiny-mistral"
    shutil.copytree(tiny_chat_base, base)
    config = json.loads((base / "config.json").read_text())
    config |= {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": 64}
    (base / "config.json").write_text(json.dumps(config))
    folder = tiny_project(gate={"rows": 0})
    random_lora(folder / "adapters" / "small")

    with caplog.at_level(logging.WARNING):
        bundle, manifest = export(replace(load_project(folder), base=str(base)))
    assert manifest.base.context == 64
    assert "devices will serve at most 64 tokens of context" in caplog.text
    assert subject_of_bundle(bundle).model.context == 64
    with Runtime(bundle) as runtime:
        assert runtime.engine.context == 64
    with pytest.raises(UsageError, match="65 tokens can't be had: ask for 1 to 64"):
        Runtime(bundle, context=65)


def test_a_base_without_a_window_keeps_its_context(tiny_chat_base: Path) -> None:
    assert exact_context(resolve_base(str(tiny_chat_base))) is None
