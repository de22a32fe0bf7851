"""Where an ONNX graph has its weights: in the base's own files, or it is refused before an engine reads it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.base_header import check_base_header, onnx_layers
from edgekit_runtime.formats.gguf import read_gguf
from edgekit_runtime.formats.onnx_base import DATA_FILE, KEY_LAYERS
from edgekit_runtime.formats.onnx_graph import MAX_DEPTH, check_graph
from tests.raw_gguf import Value, metadata_of_base, write_raw

SIZE = 1000
MODEL_GRAPH, GRAPH_NODE, GRAPH_TENSOR, NODE_ATTRIBUTE, ATTRIBUTE_GRAPH, TENSOR_ENTRY = 7, 1, 5, 5, 6, 13
SOUND = {"location": DATA_FILE, "offset": "64", "length": str(SIZE - 64)}


def varint(number: int) -> bytes:
    head = b""
    while number > 0x7F:
        head, number = head + bytes([number & 0x7F | 0x80]), number >> 7
    return head + bytes([number])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def tensor(entries: dict[str, str]) -> bytes:
    pairs = (field(1, key.encode()) + field(2, value.encode()) for key, value in entries.items())
    return b"".join(field(TENSOR_ENTRY, pair) for pair in pairs) + varint(14 << 3) + b"\x01"


def model(entries: dict[str, str], depth: int = 0) -> bytes:
    """A graph with one tensor, in as many graphs in attributes of nodes."""
    graph = field(GRAPH_TENSOR, tensor(entries))
    for _ in range(depth):
        graph = field(GRAPH_NODE, field(NODE_ATTRIBUTE, field(ATTRIBUTE_GRAPH, graph)))
    return field(MODEL_GRAPH, graph)


@pytest.fixture
def check(tmp_path: Path) -> Callable[[bytes], None]:
    (tmp_path / DATA_FILE).write_bytes(bytes(SIZE))
    parts = {DATA_FILE: tmp_path / DATA_FILE, "elsewhere": tmp_path / "other" / "elsewhere"}

    def run(content: bytes) -> None:
        (tmp_path / "model.onnx").write_bytes(content)
        check_graph(tmp_path / "model.onnx", parts)

    return run


def test_weights_in_the_base_s_own_file_are_taken(check: Callable[[bytes], None]) -> None:
    check(model(SOUND))
    check(model(SOUND, depth=20))
    check(model({"location": DATA_FILE}))


@pytest.mark.parametrize("depth", [0, 3])
@pytest.mark.parametrize(
    "location", ["../x", "/etc/hostname", "", ".", "x", "elsewhere", f"./{DATA_FILE}", "*/_ORT_MEM_ADDR_/*", "a" * 9999]
)
def test_weights_anywhere_else_are_refused(check: Callable[[bytes], None], location: str, depth: int) -> None:
    with pytest.raises(InputError, match="which is no file of this base"):
        check(model({**SOUND, "location": location}, depth))


@pytest.mark.parametrize(
    "place", [{"offset": "937"}, {"length": "1001"}, {"offset": "-1"}, {"length": "1e3"}, {"offset": "9" * 40}]
)
def test_places_that_the_file_has_not_are_refused(check: Callable[[bytes], None], place: dict[str, str]) -> None:
    with pytest.raises(InputError, match="weights end beyond|is no place"):
        check(model(SOUND | place))


def test_a_tensor_that_is_elsewhere_and_says_not_where_is_refused(check: Callable[[bytes], None]) -> None:
    with pytest.raises(InputError, match="which is no file of this base"):
        check(model({}))


def test_a_place_that_stands_twice_is_refused(check: Callable[[bytes], None]) -> None:
    twice = field(TENSOR_ENTRY, field(1, b"location") + field(2, b"/etc/hostname"))
    with pytest.raises(InputError, match="stands twice"):
        check(field(MODEL_GRAPH, field(GRAPH_TENSOR, tensor(SOUND) + twice)))


def test_graphs_in_graphs_have_an_end(check: Callable[[bytes], None]) -> None:
    with pytest.raises(InputError, match=f"nested deeper than {MAX_DEPTH}"):
        check(model(SOUND, depth=MAX_DEPTH))


@pytest.mark.parametrize("content", [b"", b"\xff" * 20, b"\x3a", b"\x3a\x7f", b"\x3b", b"\x38\x01", b"\x3d\0"])
def test_what_is_no_protobuf_is_refused(check: Callable[[bytes], None], content: bytes) -> None:
    with pytest.raises(InputError):
        check(content)


def test_a_graph_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.onnx")
    with pytest.raises(InputError, match="no regular file"):
        check_graph(tmp_path / "model.onnx", {})


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6), cut=st.integers(0, 60))
def test_damaged_graphs_are_read_or_refused_and_never_more(
    check: Callable[[bytes], None], changes: list[tuple[int, int]], cut: int
) -> None:
    damaged = bytearray(model(SOUND, depth=5))
    damaged = damaged[: len(damaged) - cut]
    for place, value in changes:
        damaged[place % len(damaged)] = value
    try:
        check(bytes(damaged))
    except InputError:
        pass


@pytest.mark.parametrize(
    "layers",
    [
        ("STRING", "a 1 2"),
        ("U32", 3),
        ("[U32]", [1, 2]),
        *(("[STRING]", [line]) for line in ("", "a", "a 1", "a 1 2 3", "a 1 x", "a 0 1", "a -1 1", "a 1.5 2", "a ١ 2")),
    ],
    ids=str,
)
def test_layers_that_are_none_are_refused(tmp_path: Path, layers: Value) -> None:
    path = tmp_path / "vocabulary.gguf"
    with pytest.raises(InputError, match=r"edgekit\.onnx\.layers"):
        check_base_header(read_gguf(write_raw(path, {**metadata_of_base(), KEY_LAYERS: layers}, {})))


def test_layers_are_read_with_their_widths(tmp_path: Path) -> None:
    layers: Value = ("[STRING]", ["model.layers.0.attn.qkv_proj 64 128"])
    header = read_gguf(write_raw(tmp_path / "vocabulary.gguf", {**metadata_of_base(), KEY_LAYERS: layers}, {}))
    check_base_header(header)
    assert onnx_layers(header) == {"model.layers.0.attn.qkv_proj": (64, 128)}
