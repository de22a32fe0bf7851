"""One answer to "which weights?", whoever asks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.bases.resolve import project_base
from edgekit.bases.weights import (
    Weights,
    deployed_weights,
    recorded_weights,
    training_weights,
    weights_named,
    with_blocks,
)
from edgekit.project import Adapter, Export, load_project
from edgekit.targets.subject import subject_of_base
from edgekit.training.record import read_record
from edgekit.training.run import train
from edgekit_exporters.gguf.base import base_gguf, quantization_of
from edgekit_runtime.errors import UsageError


@pytest.fixture
def q4_file(tiny_chat_base: Path) -> Path:
    from edgekit.bases.resolve import resolve_base

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
