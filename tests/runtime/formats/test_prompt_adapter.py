"""Files of virtual tokens: what is sound is read, all else refused before an engine sees it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit_runtime.engines.llama.engine import LlamaEngine
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.adapter import AdapterFacts
from edgekit_runtime.formats.base_files import BaseFiles
from edgekit_runtime.formats.gguf import GgufFile, read_gguf
from edgekit_runtime.formats.manifest import Manifest, read_adapter_entry
from edgekit_runtime.formats.prompt_adapter import (
    GENERAL_TYPE,
    KEY_VIRTUAL_TOKENS,
    MAX_VIRTUAL_TOKENS,
    ROWS,
    read_rows,
)
from edgekit_runtime.intake.adapters import take_in
from edgekit_runtime.intake.canary import try_adapters
from tests.goods import Goods
from tests.tiny_gguf import WIDTH, write_base

MANY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def base_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base") / "base.gguf")


@pytest.fixture(scope="module")
def base(base_file: Path) -> GgufFile:
    return read_gguf(base_file)


def write(
    path: Path,
    rows: Any = None,
    *,
    stated: int | None = None,
    tensor: str = ROWS,
    kind: str = GENERAL_TYPE,
    architecture: str = "llama",
) -> Path:
    """A file of virtual tokens, right or wrong."""
    rows = np.random.default_rng(1).normal(size=(3, WIDTH)).astype(np.float32) if rows is None else rows
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_string("general.type", kind)
    writer.add_uint32(KEY_VIRTUAL_TOKENS, len(rows) if stated is None else stated)
    writer.add_tensor(tensor, rows)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_sound_file_is_taken_and_tried(base: GgufFile, base_file: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "a.gguf")
    assert take_in(file, base, family=None).virtual_tokens == 3
    assert try_adapters(BaseFiles("llama.cpp", base_file), [file]) == [True]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"stated": 4}, "is 4, and .* has 3 rows"),
        ({"tensor": "token_embd.weight.lora_a"}, "has to hold the tensor"),
        ({"rows": np.ones((3, WIDTH), np.float16)}, "a matrix of F32"),
        ({"rows": np.ones((2, 3, WIDTH), np.float32), "stated": 2}, "a matrix of F32"),
        ({"rows": np.ones((MAX_VIRTUAL_TOKENS + 1, WIDTH), np.float32)}, "may have 1 to"),
        ({"rows": np.ones((3, WIDTH // 2), np.float32)}, "rows of 16 numbers, and an embedding of the base has 32"),
        ({"architecture": "gemma"}, "is for the architecture gemma"),
        ({"kind": "prompts"}, "is not a LoRA adapter but a prompts"),
    ],
)
def test_a_file_that_is_wrong_is_refused(base: GgufFile, tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=why):
        take_in(write(tmp_path / "a.gguf", **changes), base, family=None)


@MANY
@given(place=st.integers(0, 3 * WIDTH - 1), value=st.sampled_from([np.nan, np.inf, -np.inf]))
def test_a_value_that_is_no_number_is_found_wherever_it_is(
    base: GgufFile, tmp_path: Path, place: int, value: float
) -> None:
    rows = np.ones(3 * WIDTH, np.float32)
    rows[place] = value
    with pytest.raises(InputError, match="NaN or infinite"):
        take_in(write(tmp_path / "a.gguf", rows.reshape(3, WIDTH)), base, family=None)


@MANY
@given(count=st.integers(1, 40), scale=st.floats(1e-30, 1e30))
def test_rows_are_read_as_they_were_written(base: GgufFile, tmp_path: Path, count: int, scale: float) -> None:
    rows = (np.random.default_rng(count).normal(size=(count, WIDTH)) * scale).astype(np.float32)
    facts = take_in(write(tmp_path / "a.gguf", rows), base, family=None)
    assert facts.rows is not None
    assert np.array_equal(read_rows(facts.path, facts.rows), rows)


def test_llama_cpp_takes_no_such_file_for_a_lora(base_file: Path, tmp_path: Path) -> None:
    from llama_cpp import llama_cpp as llama

    engine = LlamaEngine(base_file, context=32, threads=1)
    assert not llama.llama_adapter_lora_init(engine._model, str(write(tmp_path / "a.gguf")).encode())
    engine.close()


def test_a_file_loaded_past_the_intake_is_refused_by_its_width(base_file: Path, tmp_path: Path) -> None:
    engine = LlamaEngine(base_file, context=32, threads=1)
    with pytest.raises(InputError, match="rows of 16 numbers, and the base reads 32"):
        engine.load_adapter("it", write(tmp_path / "a.gguf", np.ones((3, 16), np.float32)))
    engine.close()


def test_a_manifest_of_an_unknown_kind_asks_for_a_newer_runtime(goods: Goods) -> None:
    manifest = Manifest.parse((goods.bundle / "manifest.json").read_bytes(), where="it")
    entry = json.loads(manifest.dump())["adapters"][0]
    assert "kind" not in entry  # manifests of LoRA stay as they were
    for change, why in (
        ({"kind": "soft"}, "of the kind 'soft', which this version doesn't know: update"),
        ({"kind": "prompt"}, "has virtual tokens"),
        ({"virtual_tokens": 3}, "has virtual tokens"),
    ):
        with pytest.raises(InputError, match=why):
            read_adapter_entry(entry | change, "it")
    assert read_adapter_entry(entry | {"kind": "prompt", "virtual_tokens": 3}, "it").virtual_tokens == 3


def test_a_reader_of_lora_alone_names_it_when_it_refuses(tmp_path: Path) -> None:
    """What runtimes before virtual tokens looked at first: they say `is not a LoRA adapter but a prompt adapter`."""
    metadata = read_gguf(write(tmp_path / "a.gguf")).metadata
    assert metadata["general.type"] == "prompt adapter"
    assert "adapter.type" not in metadata
    assert AdapterFacts.read(tmp_path / "a.gguf").rows is not None
