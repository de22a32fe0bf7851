"""`edgekit export --format onnx`, from a trained adapter to a bundle that answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit import export, load_project, train
from edgekit_runtime import BASE, Runtime, UsageError
from edgekit_runtime.onnx_base import ENGINE

pytest.importorskip("onnx_ir", reason="the extra is not installed: pip install 'edgekit[onnx]'")


def test_one_word_changes_the_format_and_the_proof_passes(tiny_project: Callable[..., Path]) -> None:
    project = load_project(tiny_project({"format": "onnx", "quantize": "fp32"}))
    train(project, "small")
    bundle, manifest = export(project)
    assert (manifest.engine, manifest.base.quantization) == (ENGINE, "fp32")
    assert manifest.quality["gate"] == "passed"
    assert manifest.adapters[0].file == "adapters/small-1.0.0.onnx_adapter"
    assert manifest.adapters[0].quality["mean_kl"] < 1e-4  # type: ignore[index]
    merged, _ = export(project, ["small"], mode="merged", output=bundle.with_name("merged"))
    with Runtime(bundle) as separate, Runtime(merged) as folded:
        asked = {"prompt": "scratch of 3 mm", "max_tokens": 8}
        answer = separate.generate(adapter="small", **asked).text
        assert folded.generate(**asked).text == answer
        assert separate.generate(adapter=BASE, **asked).usage.completion_tokens


def test_a_precision_of_the_other_format_is_refused(tiny_project: Callable[..., Path]) -> None:
    project = load_project(tiny_project())
    with pytest.raises(UsageError, match="use one of fp32, fp16, int8, int4"):
        export(project, format="onnx", quantize="Q4_K_M")
