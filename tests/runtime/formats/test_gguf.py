"""The reader takes sound files and refuses every damaged one with a clear error."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.gguf import ADAPTER_METADATA, BASE_METADATA, read_gguf


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "sound.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_string("some.text", "Prüfung 检测")
    writer.add_array("some.words", ["a", "bc", ""])
    writer.add_array("some.numbers", [1, 2, 3])
    writer.add_bool("some.flag", True)
    writer.add_float32("some.float", 0.5)
    writer.add_tensor("a.weight", np.ones((4, 64), dtype=np.float32))
    writer.add_tensor("b.weight", np.ones(8, dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_metadata_and_tensors_are_what_was_written(sound: Path) -> None:
    file = read_gguf(sound)
    assert file.metadata["some.text"] == "Prüfung 检测"
    assert file.metadata["some.words"] == ["a", "bc", ""]
    assert file.metadata["some.numbers"] == [1, 2, 3]
    assert file.metadata["some.flag"] is True
    assert file.metadata["some.float"] == 0.5
    assert file.tensors["a.weight"].shape == (64, 4)
    assert (file.tensors["b.weight"].type_name, file.tensors["b.weight"].size) == ("F16", 16)


def test_tensor_data_is_where_the_reader_says(sound: Path) -> None:
    info = read_gguf(sound).tensors["a.weight"]
    data = sound.read_bytes()[info.offset : info.offset + info.size]
    assert (np.frombuffer(data, dtype=np.float32) == 1).all()


def test_a_file_cut_off_anywhere_is_refused(sound: Path, tmp_path: Path) -> None:
    content = sound.read_bytes()
    needed = max(info.offset + info.size for info in read_gguf(sound).tensors.values())
    cut = tmp_path / "cut.gguf"
    for length in range(0, needed, 7):
        cut.write_bytes(content[:length])
        with pytest.raises(InputError, match="cut.gguf"):
            read_gguf(cut)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_changed_bytes_are_read_or_refused_but_never_crash(sound: Path, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(sound.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(content) - 1))
        content[position] = data.draw(st.integers(0, 255))
    path = tmp_path / "changed.gguf"
    path.write_bytes(content)
    try:
        file = read_gguf(path)
    except InputError:
        return
    assert all(info.offset + info.size <= len(content) for info in file.tensors.values())


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (4, struct.pack("<I", 99), "version 99"),
        (8, struct.pack("<Q", 1 << 60), "tensors"),
        (16, struct.pack("<Q", 1 << 60), "metadata keys"),
        (24, struct.pack("<Q", 1 << 62), "bytes of text"),
    ],
)
def test_impossible_counts_are_refused_before_anything_is_allocated(
    offset: int, value: bytes, message: str, sound: Path, tmp_path: Path
) -> None:
    content = bytearray(sound.read_bytes())
    content[offset : offset + len(value)] = value
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_gguf(path)


@pytest.mark.parametrize("content", [b"", b"GG", b"not a model at all", b"GGUF"])
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other.gguf"
    path.write_bytes(content)
    with pytest.raises(InputError):
        read_gguf(path)
    with pytest.raises(InputError, match="can't be read"):
        read_gguf(tmp_path / "missing.gguf")


def _array(code: int, count: int, content: bytes) -> bytes:
    return struct.pack("<IIQ", 9, code, count) + content


METADATA = {
    "signed bytes": _array(1, 1_000_000, b"\x80" * 1_000_000),
    "bytes": _array(0, 1_000_000, b"\xff" * 1_000_000),
    "flags": _array(7, 1_000_000, b"\x01" * 1_000_000),
    "short numbers": _array(3, 1_000_000, b"\x00\x80" * 1_000_000),
    "empty texts": _array(8, 1_000_000, bytes(8_000_000)),
    "short texts": _array(8, 500_000, (struct.pack("<Q", 2) + b"ab") * 500_000),
    "a long text": struct.pack("<IQ", 8, 8_000_000) + b"x" * 8_000_000,
    "a wide text": struct.pack("<IQ", 8, 8_000_000) + "\U0001f600".encode() * 2_000_000,
}


def _with_metadata(path: Path, values: list[bytes]) -> Path:
    keys = [f"key.{number}".encode() for number in range(len(values))]
    pairs = b"".join(struct.pack("<Q", len(key)) + key + value for key, value in zip(keys, values, strict=True))
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(values)) + pairs + bytes(64))
    return path


@pytest.mark.parametrize("value", METADATA.values(), ids=METADATA)
def test_all_metadata_has_one_budget_of_memory(value: bytes, tmp_path: Path) -> None:
    path = _with_metadata(tmp_path / "large.gguf", [value])
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="more metadata than such a file needs|more than the .* allowed"):
            read_gguf(path, budget=ADAPTER_METADATA)
        assert tracemalloc.get_traced_memory()[1] < 8 * ADAPTER_METADATA
        tracemalloc.reset_peak()
        read_gguf(path, budget=BASE_METADATA)  # as much as a vocabulary
        assert tracemalloc.get_traced_memory()[1] < BASE_METADATA / 4
    finally:
        tracemalloc.stop()


def test_many_small_keys_share_the_budget(tmp_path: Path) -> None:
    few = _with_metadata(tmp_path / "few.gguf", [struct.pack("<IQ", 8, 100_000) + b"x" * 100_000] * 8)
    assert len(read_gguf(few, budget=ADAPTER_METADATA).metadata) == 8
    many = _with_metadata(tmp_path / "many.gguf", [struct.pack("<IQ", 8, 100_000) + b"x" * 100_000] * 12)
    with pytest.raises(InputError, match="more metadata|are allowed"):
        read_gguf(many, budget=ADAPTER_METADATA)
