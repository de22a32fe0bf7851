"""Which files an ONNX graph asks for: its protobuf is walked, and no length in it is trusted.

ONNX Runtime opens what a graph names as the place of its weights.  A graph comes from anybody, so a place may be one of
the base's own files, which the manifest lists, and a part of it that it has.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NoReturn

from edgekit_runtime.errors import InputError, shown
from edgekit_runtime.files.regular import open_regular

# Messages of onnx.proto3 on the way to tensors: field number -> message.
_MESSAGES: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_KEY, _VALUE = 1, 2  # of an entry
_DATA_LOCATION, _EXTERNAL = 14, 1  # of a tensor
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_NUMBER = re.compile(rb"[0-9]{1,18}")

MAX_FIELDS = 2_000_000  # a few seconds; a decoder of 100 layers has some 100,000
MAX_DEPTH = 100  # of messages, as protobuf has it
MAX_ENTRY_BYTES = 4096
LONGEST_VARINT = 70  # bits, 7 in each byte

Piece = tuple[int, int]  # from where to where in the file


def check_graph(path: Path, parts: Mapping[str, Path]) -> None:
    """Check that the weights of a graph are in the base's files.

    Args:
        path: the graph.
        parts: the base's other files by name.

    Raises:
        InputError: it is no protobuf, or weights are in another file, or where that has nothing.
    """
    try:
        with open_regular(path) as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            walk = _Walk(path, content)
            sizes = {name: part.stat().st_size for name, part in parts.items() if part == path.with_name(name)}
            for entries in walk.external():
                _check_place(walk, entries, sizes)
    except (OSError, ValueError) as error:  # an empty file can't be mapped
        raise InputError(f"{path} can't be read ({error})", "check the path") from None


def _check_place(walk: _Walk, entries: Mapping[bytes, bytes], sizes: Mapping[str, int]) -> None:
    name = entries.get(b"location", b"").decode("utf-8", "replace")
    if name not in sizes:
        walk.fail(f"weights are in {shown(name)}, which is no file of this base")
    place = [entries.get(key, b"0") for key in (b"offset", b"length")]
    if not all(map(_NUMBER.fullmatch, place)):
        walk.fail(f"{shown(str(place))} is no place in {name}")
    if sum(map(int, place)) > sizes[name]:
        walk.fail(f"weights end beyond {name}")


class _Walk:
    """Goes through the messages that may hold tensors."""

    def __init__(self, path: Path, content: mmap.mmap) -> None:
        self.path, self.content, self.fields = path, content, 0

    def external(self) -> Iterator[dict[bytes, bytes]]:
        """What each tensor that is elsewhere says of its place."""
        waiting: list[tuple[str, Piece, int]] = [("model", (0, len(self.content)), 0)]
        while waiting:
            kind, piece, depth = waiting.pop()
            if depth > MAX_DEPTH:
                self.fail(f"it is nested deeper than {MAX_DEPTH}")
            entries: dict[bytes, bytes] = {}
            elsewhere = False
            for number, value in self.items(piece):
                inner = _MESSAGES[kind].get(number)
                if kind == "tensor" and number == _DATA_LOCATION:
                    elsewhere |= value == _EXTERNAL
                elif inner is None:
                    continue
                elif not isinstance(value, tuple):
                    self.fail("a message is a number")
                elif inner == "entry":
                    self.enter(entries, value)
                else:
                    waiting.append((inner, value, depth + 1))
            if entries or elsewhere:
                yield entries

    def enter(self, entries: dict[bytes, bytes], piece: Piece) -> None:
        """Take one key and value."""
        found = {_KEY: b"", _VALUE: b""}
        for number, value in self.items(piece):
            if isinstance(value, tuple) and number in found:
                found[number] = self.content[value[0] : min(value[1], value[0] + MAX_ENTRY_BYTES)]
        if found[_KEY] in entries:
            self.fail(f"{shown(found[_KEY].decode('utf-8', 'replace'))} of a tensor stands twice")
        entries[found[_KEY]] = found[_VALUE]

    def items(self, piece: Piece) -> Iterator[tuple[int, int | Piece]]:
        """A message's fields, each with its number, and with its value or where that is."""
        at, end = piece
        while at < end:
            self.fields += 1
            if self.fields > MAX_FIELDS:
                self.fail(f"it has more than {MAX_FIELDS} fields")
            tag, at = self.varint(at, end)
            number, wire = tag >> 3, tag & 7
            if wire == _VARINT:
                value, at = self.varint(at, end)
                yield number, value
                continue
            if wire == _BYTES:
                length, at = self.varint(at, end)
            elif wire in (_FIXED64, _FIXED32):
                length = 8 if wire == _FIXED64 else 4
            else:
                self.fail(f"a field has the unknown wire type {wire}")
            if length > end - at:
                self.fail("it is truncated, or a length is wrong")
            if wire == _BYTES:
                yield number, (at, at + length)
            at += length

    def varint(self, at: int, end: int) -> tuple[int, int]:
        """A number of 7 bits a byte, and where it ends."""
        value = shift = 0
        while True:
            if at >= end or shift >= LONGEST_VARINT:
                self.fail("it is truncated, or a number is too long")
            byte = self.content[at]
            value |= (byte & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if byte < 0x80:
                return value, at

    def fail(self, problem: str) -> NoReturn:
        raise InputError(f"{self.path} is not a sound ONNX graph: {problem}", "copy or export it again")
