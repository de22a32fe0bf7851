""".onnx_adapter files from anywhere: read within bounds, or refused with one error and nothing else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit_runtime.engines.onnx.adapters import Loaded
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.adapter import KEY_INVOCATION, KEY_RANK, AdapterFacts
from edgekit_runtime.formats.onnx_adapter import OnnxAdapter, Parameter, model_version, read_onnx_adapter, trailer

onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'edgekit-runtime[onnx]'")

FACTS = {"edgekit.name": "a", "edgekit.version": "1", "edgekit.family": "tiny"}


def adapter_bytes(folder: Path, version: int | None = None) -> bytes:
    file = onnxruntime.AdapterFormat()
    file.set_adapter_version(1)
    file.set_model_version(model_version("tiny") if version is None else version)
    arrays = {
        "layer.lora_A": np.arange(12, dtype=np.float32).reshape(4, 3),
        "layer.lora_B": np.ones((3, 5), np.float32),
    }
    file.set_parameters({name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()})
    file.export_adapter(str(folder / "plain"))
    return (folder / "plain").read_bytes() + trailer(FACTS)


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return adapter_bytes(tmp_path_factory.mktemp("adapter"))


def test_what_onnxruntime_writes_is_read_as_it_is(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.onnx_adapter").write_bytes(content)
    found = read_onnx_adapter(tmp_path / "a.onnx_adapter")
    assert found.facts == FACTS
    assert np.array_equal(found.arrays()["layer.lora_A"], np.arange(12, dtype=np.float32).reshape(4, 3))
    facts = AdapterFacts.read(tmp_path / "a.onnx_adapter")
    assert (facts.name, facts.family, facts.pairs) == ("a", "tiny", {"layer": (4, 5, 3)})


@pytest.mark.parametrize("offset", [0, 1, 6])
def test_matrices_may_begin_anywhere_in_a_file(offset: int, tmp_path: Path) -> None:
    matrix = np.arange(12, dtype=np.float32).reshape(4, 3)
    (tmp_path / "a").write_bytes(b"\0" * offset + matrix.tobytes())
    found = OnnxAdapter(tmp_path / "a", 0, {"m": Parameter("m", (4, 3), offset)}, {}).arrays()["m"]
    assert np.array_equal(found, matrix)


def test_a_loaded_adapter_outlives_its_file(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "a.onnx_adapter"
    file.write_bytes(content)
    found = read_onnx_adapter(file).arrays()["layer.lora_A"]
    file.unlink()
    file.write_bytes(b"\0" * len(content))
    assert np.array_equal(found, np.arange(12, dtype=np.float32).reshape(4, 3))


def test_onnxruntime_reads_files_with_a_trailer(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.onnx_adapter").write_bytes(content)
    read = onnxruntime.AdapterFormat.read_adapter(str(tmp_path / "a.onnx_adapter"))
    assert read.get_model_version() == model_version("tiny")


def test_a_model_version_of_another_base_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.onnx_adapter").write_bytes(adapter_bytes(tmp_path, version=1))
    with pytest.raises(InputError, match="model version"):
        AdapterFacts.read(tmp_path / "a.onnx_adapter")


def test_a_file_without_its_end_is_not_taken_for_somebody_elses(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.onnx_adapter"
    whole = len(content) - len(trailer(FACTS))
    path.write_bytes(content[:whole])  # as ONNX Runtime writes it
    assert AdapterFacts.read(path).family is None
    for length in [*range(12), *range(whole + 1, len(content))]:
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match="onnx_adapter"):
            AdapterFacts.read(path)


@pytest.mark.parametrize(
    "facts",
    [
        {"edgekit.generation": []},
        {"edgekit.generation": "{}"},
        {"edgekit.generation": 7},
        {"edgekit.generation": {"max_tokens": "many"}},
        {"edgekit.generation": {"max_tokens": True}},
        {"edgekit.generation": {"max_tokens": 1.5}},
        {"edgekit.generation": {"top_k": [1]}},
        {"edgekit.generation": {"temperature": {}}},
        {"edgekit.generation": {"temperature": float("nan")}},
        {"edgekit.generation": {"top_p": 2}},
        {"edgekit.system": ["a"]},
        {"edgekit.output_schema": [1]},
        {"edgekit.template_arguments": "x"},
        {"edgekit.rank": "4"},
        {"edgekit.rank": True},
        {"adapter.alora.invocation_tokens": [True]},
    ],
    ids=str,
)
def test_facts_of_wrong_types_are_refused(content: bytes, facts: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "a.onnx_adapter"
    path.write_bytes(content[: -len(trailer(FACTS))] + trailer({**FACTS, **facts}))
    with pytest.raises(InputError, match="is not a sound adapter"):
        AdapterFacts.read(path)


@pytest.mark.parametrize("name", ["edgekit.system", "edgekit.name", "\ud800"])
def test_half_a_character_is_no_text(content: bytes, name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.onnx_adapter"
    path.write_bytes(content[: -len(trailer(FACTS))] + trailer({**FACTS, name: "a\ud800"}))
    with pytest.raises(InputError, match="not a JSON object"):
        AdapterFacts.read(path)


def test_the_engine_takes_of_an_adapter_what_was_checked(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.onnx_adapter"
    path.write_bytes(content[: -len(trailer(FACTS))] + trailer({**FACTS, KEY_RANK: None, KEY_INVOCATION: None}))
    loaded = Loaded.read(path)
    assert (loaded.rank, loaded.invocation) == (0, ())


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    for name in ("a.onnx_adapter", "a.gguf"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(InputError, match="no regular file"):
            AdapterFacts.read(tmp_path / name)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=8),
    cut=st.integers(0, 200),
)
def test_damaged_files_are_read_or_refused_and_never_more(
    changes: list[tuple[int, int]], cut: int, content: bytes, tmp_path: Path
) -> None:
    damaged = bytearray(content[: len(content) - cut] if cut % 2 else content)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    path = tmp_path / "a.onnx_adapter"
    path.write_bytes(damaged)
    try:
        found = read_onnx_adapter(path)
    except InputError:
        return
    for parameter in found.parameters.values():
        rows, columns = parameter.shape
        assert parameter.offset + rows * columns * 4 <= len(damaged)
    found.arrays()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(noise=st.binary(max_size=400))
def test_noise_behind_the_identifier_is_read_or_refused(noise: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.onnx_adapter"
    path.write_bytes(noise[:4].ljust(4, b"\0") + b"TORT" + noise[4:])
    try:
        read_onnx_adapter(path)
    except InputError:
        pass
