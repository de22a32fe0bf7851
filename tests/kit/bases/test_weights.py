"""One answer to "which weights?", whoever asks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekit.bases.resolve import project_base, resolve_base
from edgekit.bases.weights import (
    Weights,
    deployed_weights,
    recorded_weights,
    tell_requantized,
    training_weights,
    weights_named,
    with_blocks,
)
from edgekit.project import Adapter, Export, load_project
from edgekit.project.run_record import read_record
from edgekit.targets.subject import subject_of_base
from edgekit.training.run import train
from edgekit_exporters.bundle import BundlePlan, write_bundle
from edgekit_exporters.gguf.base import base_gguf, quantization_of
from edgekit_runtime.errors import UsageError


@pytest.fixture
def q4_file(tiny_chat_base: Path) -> Path:
    return base_gguf(resolve_base(str(tiny_chat_base)), "Q4_0")


def test_a_float_base_without_a_type_is_planned_and_exported_at_the_same_one(tiny_project: Callable[..., Path]) -> None:
    project = load_project(tiny_project({"quantize": None}))
    base = project_base(project)
    weights = deployed_weights(project.export, base.gguf)
    exported = with_blocks(project, base, weights).blocks
    assert exported is not None
    assert subject_of_base(base, weights).model.quantization == quantization_of(exported) == "Q8_0"


def test_a_gguf_base_keeps_its_own_type(q4_file: Path) -> None:
    assert deployed_weights(Export(), q4_file) == Weights("gguf", "Q4_0")
    assert training_weights(Adapter("a"), Export(), q4_file).precision == "gguf"


def test_a_command_beats_the_project_and_the_project_beats_the_file(q4_file: Path) -> None:
    settings = Export(quantize="q5_k_m")
    assert deployed_weights(settings, q4_file).quantization == "Q5_K_M"
    assert deployed_weights(settings, q4_file, "q8_0").quantization == "Q8_0"


@pytest.mark.parametrize(
    ("wanted", "settings", "expected"),
    [
        (None, Export(), Weights("torch", "nf4")),  # nobody said what devices run
        (None, Export(quantize="auto"), Weights("torch", "nf4")),
        (None, Export(quantize="Q4_0"), Weights("gguf", "Q4_0")),
        ("gguf", Export(), Weights("gguf", "Q8_0", is_default=True)),
        ("bf16", Export(quantize="Q4_0"), Weights("torch", "bf16")),
        (None, Export(format="onnx"), Weights("onnx", "int4")),
        (None, Export(format="onnx", quantize="fp16"), Weights("torch", "fp32")),
        ("onnx-int8", Export(), Weights("onnx", "int8")),
    ],
)
def test_an_adapter_is_trained_on_what_devices_run_unless_it_says_otherwise(
    wanted: str | None, settings: Export, expected: Weights
) -> None:
    found = training_weights(Adapter("a", base_precision=wanted), settings, None)
    assert found == expected
    deployed = deployed_weights(settings, None)
    assert recorded_weights(found.precision, deployed.quantization).precision == found.precision


def test_blocks_that_are_not_known_yet_cannot_be_trained_on() -> None:
    with pytest.raises(UsageError, match=r"export\.quantize is auto: set export\.quantize to a type"):
        training_weights(Adapter("a", base_precision="gguf"), Export(quantize="auto"), None)


def test_a_type_alone_tells_its_format() -> None:
    assert weights_named("int4", None) == Weights("onnx", "int4")
    assert weights_named("q4_0", None) == Weights("gguf", "Q4_0")
    assert weights_named(None, None).label == "Q8_0"


def test_the_record_of_a_float_training_names_what_devices_run(tiny_project: Callable[..., Path]) -> None:
    record = read_record(train(load_project(tiny_project({"quantize": None}, max_steps=1))))
    assert record is not None
    assert (record["base_precision"], record["quantization"], record["blocks"]) == ("fp32", "Q8_0", None)


@pytest.mark.parametrize(
    ("kind", "merged", "said"),
    [
        ("Q8_0", False, "Q8_0 made from Q4_0: no better than Q4_0"),
        ("F16", False, "F16 made from Q4_0: no better than Q4_0"),
        ("Q2_K", False, "Q2_K made from Q4_0, not from float weights: what both types lose adds up"),
        ("Q4_0", True, "Q4_0 made from Q4_0, not from float weights: what both types lose adds up"),
        ("int4", False, "int4 made from Q4_0, not from float weights: what both types lose adds up"),
        ("fp32", False, "fp32 made from Q4_0: no better than Q4_0"),
        ("Q4_0", False, None),
    ],
)
def test_weights_that_are_quantized_again_are_called_so(
    kind: str, merged: bool, said: str | None, q4_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tell_requantized(q4_file, weights_named(kind, q4_file), merged=merged)
    assert [record.getMessage().partition(";")[0] for record in caplog.records] == ([said] if said else [])


def test_float_weights_are_quantized_once_and_nothing_is_said(
    tiny_chat_base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = base_gguf(resolve_base(str(tiny_chat_base)), "F16")
    caplog.clear()
    tell_requantized(file, weights_named("Q4_0", file))
    tell_requantized(None, weights_named("Q4_0", None))
    assert not caplog.records


def test_a_bundle_says_what_its_base_was_made_from(q4_file: Path, tmp_path: Path) -> None:
    base = resolve_base(str(q4_file))
    for kind, source in (("Q8_0", "Q4_0"), ("Q4_0", None)):
        settings: dict[str, Any] = {"name": "made", "task": "text", "version": "1", "isa": "any"}
        plan = BundlePlan(
            base=base, base_file=base_gguf(base, kind), merged=[], adapters=[], default_adapter=None, **settings
        )
        assert write_bundle(plan, tmp_path / kind).base.requantized_from == source
