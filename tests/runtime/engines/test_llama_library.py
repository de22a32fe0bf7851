"""How models are loaded by the features of the engine's build."""

from __future__ import annotations

import pytest

from edgekit_runtime.engines.llama import library as llama_library


@pytest.mark.parametrize(
    ("features", "repacked"), [(["AVX2", "AMX_INT8"], False), (["AVX2", "REPACK"], True), ([], True)]
)
def test_weights_are_not_laid_out_for_amx_which_crashes(
    monkeypatch: pytest.MonkeyPatch, features: list[str], repacked: bool
) -> None:
    llama_library.start_backend()
    monkeypatch.setattr(llama_library, "engine_info", lambda: {"cpu_features": features})

    assert llama_library.model_parameters().use_extra_bufts is repacked
