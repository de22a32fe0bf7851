"""`edgekit export --format onnx`, from a trained adapter to a bundle that answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit import export, load_project, train
from edgekit.examples.init import init_project
from edgekit.project import Gate
from edgekit_runtime import BASE, InputError, Runtime, UsageError
from edgekit_runtime.formats.onnx_base import ENGINE

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


def test_what_was_trained_on_the_blocks_runs_on_them(tiny_project: Callable[..., Path]) -> None:
    """Without a word about it, as devices run int4."""
    project = load_project(tiny_project({"format": "onnx", "quantize": "int4"}, base_precision=None))
    record = json.loads((train(project, "small") / "run.json").read_text())
    assert (record["base_precision"], record["quantization"]) == ("onnx-int4", "int4")
    _, manifest = export(project)
    assert manifest.quality["gate"] == "passed"
    assert manifest.quality["reference"] == "torch at int4"
    narrower, _ = export(project, quantize="int8", accept_loss="to see", output=project.folder / "dist" / "int8")
    assert json.loads((narrower / "manifest.json").read_text())["quality"]["artifact"].endswith("at int8")


def test_an_adapter_of_other_blocks_is_refused(tiny_project: Callable[..., Path]) -> None:
    project = load_project(tiny_project({"format": "onnx"}, base_precision="onnx-int8", max_steps=1))
    record = train(project, "small") / "run.json"
    record.write_text(record.read_text().replace(json.loads(record.read_text())["blocks"], "0" * 64))
    with pytest.raises(InputError, match="was trained on other blocks"):
        export(project)


def test_blocks_of_the_other_format_are_refused_before_training(tiny_project: Callable[..., Path]) -> None:
    project = load_project(tiny_project({"format": "onnx"}, base_precision="gguf"))
    with pytest.raises(UsageError, match="use onnx-int4"):
        train(project)


@pytest.mark.model
def test_the_real_base_trains_on_its_int4_blocks_and_passes_the_gate(tmp_path: Path) -> None:
    init_project(tmp_path / "line-3")
    for part, rows in (("train", 8), ("eval", 3)):
        file = tmp_path / "line-3" / "data" / f"inspection.{part}.jsonl"
        file.write_text("".join(file.read_text().splitlines(keepends=True)[:rows]))
    plain = load_project(tmp_path / "line-3")
    adapter = replace(plain.adapters["inspection"], base_precision="onnx-int4", max_steps=2, batch_size=2)
    project = replace(plain, adapters={"inspection": adapter}, gate=Gate(rows=3, max_mean_kl=0.05, min_gain=-100))
    train(project)
    _, manifest = export(project, format="onnx", quantize="int4")
    assert manifest.quality["gate"] == "passed"


def test_a_precision_of_the_other_format_is_refused(tiny_project: Callable[..., Path]) -> None:
    project = load_project(tiny_project())
    with pytest.raises(UsageError, match="use one of fp32, fp16, int8, int4"):
        export(project, format="onnx", quantize="Q4_K_M")
