"""The engine is asked whether embeddings before a prompt mean to it what they mean in training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.bases.resolve import resolve_base
from edgekit.bases.virtual_probe import check_virtual_tokens, virtual_finding
from edgekit_runtime.errors import InputError


def test_a_base_that_both_read_alike_passes(tiny_chat_base: Path) -> None:
    found = virtual_finding(resolve_base(str(tiny_chat_base)).folder)
    assert found.unknown is None
    assert found.agrees
    assert found.kl < 1e-3


def test_a_base_whose_engine_scales_embeddings_once_more_is_refused(tiny_chat_base: Path, tmp_path: Path) -> None:
    """Gemma 2: llama.cpp multiplies what it is given by the root of the width, transformers what it looks up."""
    base = resolve_base(str(tiny_chat_base))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma2", "architectures": ["Gemma2ForCausalLM"]}))
    with pytest.raises(InputError, match="llama.cpp computes virtual tokens before a prompt otherwise"):
        check_virtual_tokens(replace(base, folder=tmp_path))


def test_what_no_small_model_can_be_made_of_is_told(
    tiny_chat_base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "of another world"}')
    check_virtual_tokens(replace(resolve_base(str(tiny_chat_base)), folder=tmp_path))
    assert "not checked whether llama.cpp reads virtual tokens" in caplog.text
