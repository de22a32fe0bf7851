"""Metadata change, tensors don't."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit_exporters.gguf.metadata import rewrite_metadata
from edgekit_runtime.formats.gguf import read_gguf


def make(path: Path, **metadata: str) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in metadata.items():
        writer.add_string(key.replace("__", "."), value)
    writer.add_tensor("a.weight", np.arange(64, dtype=np.float32).reshape(2, 32))
    writer.add_tensor("b.weight", np.arange(5, dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


values = (
    st.text(max_size=40)
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(width=32, allow_nan=False)
    | st.lists(st.text(max_size=5), max_size=4)
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.dictionaries(st.from_regex(r"[a-z]{1,8}\.[a-z]{1,8}", fullmatch=True), values, max_size=5))
def test_what_is_set_is_read_back_by_us_and_by_the_reference(changes: dict[str, Any], tmp_path: Path) -> None:
    source, target = make(tmp_path / "source.gguf", some__key="old"), tmp_path / "target.gguf"
    rewrite_metadata(source, target, changes)
    ours, reference = read_gguf(target), gguf.GGUFReader(target)
    assert ours.metadata == read_gguf(source).metadata | changes
    for tensor in reference.tensors:
        assert np.array_equal(tensor.data.ravel(), np.arange(tensor.data.size, dtype=tensor.data.dtype))


def test_a_key_that_is_there_is_replaced_in_its_place(tmp_path: Path) -> None:
    source = make(tmp_path / "a.gguf", first__key="1", second__key="2")
    rewrite_metadata(source, tmp_path / "b.gguf", {"first.key": "changed"})
    before, after = read_gguf(source).metadata, read_gguf(tmp_path / "b.gguf").metadata
    assert list(after) == list(before)
    assert after == before | {"first.key": "changed"}


def test_all_keys_of_a_prefix_come_from_the_other_file(tmp_path: Path) -> None:
    source = make(tmp_path / "a.gguf", tokenizer__x="wrong", tokenizer__extra="wrong", general__name="mine")
    other = make(tmp_path / "b.gguf", tokenizer__x="right", general__name="other")
    rewrite_metadata(source, tmp_path / "c.gguf", {}, copy=other, prefix="tokenizer.")
    metadata = read_gguf(tmp_path / "c.gguf").metadata
    assert (metadata["tokenizer.x"], metadata["general.name"]) == ("right", "mine")
    assert "tokenizer.extra" not in metadata


def test_a_value_that_gguf_can_not_hold_is_a_programming_error(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        rewrite_metadata(make(tmp_path / "a.gguf"), tmp_path / "b.gguf", {"a.b": {"no": "dict"}})
