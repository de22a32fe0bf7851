"""A bounded reader of GGUF headers: it never trusts a count, size or offset in the file.

Format: GGUF version 2 and 3, little-endian, as specified in ggml's ``docs/gguf.md``.  Only metadata and tensor
descriptions are read; tensor data is checked to lie inside the file and is never touched.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from edgekit_runtime.errors import InputError, shown
from edgekit_runtime.files.regular import open_regular

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
ALIGNMENT_KEY = "general.alignment"

MAX_KEYS = 4096
MAX_TENSORS = 65_536
MAX_KEY_BYTES = 65_535
MAX_TENSOR_NAME_BYTES = 63  # GGML_MAX_NAME, less its end
MAX_STRING_BYTES = 16 * 1024 * 1024
MAX_ARRAY_ITEMS = 4 * 1024 * 1024
MAX_DIMENSIONS = 4
MAX_ELEMENTS = 1 << 40
# Bytes of memory that the parsed metadata of a file may take: a base has a vocabulary, an adapter has not.
BASE_METADATA = 512 * 1024 * 1024
ADAPTER_METADATA = 1024 * 1024
NUMBER_COST, TEXT_COST = 40, 64  # of a Python object and of the list's pointer to it, at most

# GGUF value types -> struct code; 8 is a string, 9 an array.
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
VALUE_NAMES = ("U8", "I8", "U16", "I16", "U32", "I32", "F32", "BOOL", "STRING", "ARRAY", "U64", "I64", "F64")

# ggml type number -> (name, elements in a block, bytes of a block); from ggml.h and ggml-common.h.
TENSOR_TYPES = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 36),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    41: ("Q1_0", 128, 18),
    42: ("Q2_0", 64, 18),
}


@dataclass(frozen=True)
class TensorInfo:
    """One tensor: ``shape`` in ggml's order (contiguous dimension first), ``offset`` from the start of the file."""

    name: str
    shape: tuple[int, ...]
    type_name: str
    offset: int
    size: int


@dataclass(frozen=True)
class GgufFile:
    """What a GGUF file says of itself.

    Attributes:
        path: the file.
        version: of the format.
        metadata: key -> value; arrays are lists.
        types: key -> how its value is stored: "F32", and "[U32]" for an array.
        spans: key -> (start, end) of the whole key-value pair in the file, for copying it as it stands.
        tensors: name -> description, in file order.
        tensor_table: (start, end) of the tensor descriptions in the file.
        alignment: of tensor data, bytes.
        data_offset: where tensor data starts.
    """

    path: Path
    version: int
    metadata: dict[str, Any]
    types: dict[str, str]
    spans: dict[str, tuple[int, int]]
    tensors: dict[str, TensorInfo]
    tensor_table: tuple[int, int]
    alignment: int
    data_offset: int


def read_gguf(path: Path | str, *, budget: int = BASE_METADATA) -> GgufFile:
    """Read and check the header of a GGUF file.

    Args:
        path: the file.
        budget: bytes of memory that its metadata may take.

    Raises:
        InputError: not there, not GGUF, truncated, or with counts, sizes or offsets that can't be right.
    """
    path = Path(path)
    try:
        with open_regular(path) as stream:
            size = os.fstat(stream.fileno()).st_size
            if stream.read(len(MAGIC)) != MAGIC:
                raise InputError(f"{path} is not a GGUF file", "give a file in GGUF format")
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return _Reader(path, content, size, budget).read()
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror or error})", "check the path") from None


class _Reader:
    """A cursor over the file; every read checks what is left."""

    def __init__(self, path: Path, content: mmap.mmap, size: int, budget: int) -> None:
        self.path, self.content, self.size, self.budget = path, content, size, budget
        self.at = len(MAGIC)

    def read(self) -> GgufFile:
        version = self.number("I")
        if version not in VERSIONS:
            self.fail(f"GGUF version {version} is not supported", "convert the model with a current llama.cpp")
        tensor_count = self.count("Q", MAX_TENSORS, "tensors")
        key_count = self.count("Q", MAX_KEYS, "metadata keys")
        metadata: dict[str, Any] = {}
        types: dict[str, str] = {}
        spans: dict[str, tuple[int, int]] = {}
        for _ in range(key_count):
            start = self.at
            key = self.name(MAX_KEY_BYTES)
            self.spend(TEXT_COST + len(key))
            if key in metadata:
                self.fail(f"metadata key {key} stands twice")
            kind, at = self.number("I"), self.at
            metadata[key] = self.value(kind)
            types[key] = f"[{VALUE_NAMES[self.content[at]]}]" if kind == ARRAY else VALUE_NAMES[kind]
            spans[key] = (start, self.at)
        alignment = metadata.get(ALIGNMENT_KEY, DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or not 8 <= alignment <= 1 << 20 or alignment & (alignment - 1):
            self.fail(f"alignment {alignment!r} is no power of two in range")
        start = self.at
        raw = [self.tensor() for _ in range(tensor_count)]
        table = (start, self.at)
        data_offset = -(-self.at // alignment) * alignment
        tensors = self.placed(raw, alignment, data_offset)
        return GgufFile(self.path, version, metadata, types, spans, tensors, table, alignment, data_offset)

    def placed(self, raw: list[TensorInfo], alignment: int, data_offset: int) -> dict[str, TensorInfo]:
        tensors: dict[str, TensorInfo] = {}
        for info in raw:
            if info.name in tensors:
                self.fail(f"tensor {info.name} stands twice")
            offset = data_offset + info.offset
            if info.offset % alignment:
                self.fail(f"tensor {info.name} is not aligned")
            if offset + info.size > self.size:
                self.fail(f"the data of tensor {info.name} ends beyond the file")
            tensors[info.name] = TensorInfo(info.name, info.shape, info.type_name, offset, info.size)
        end = 0
        for info in sorted(tensors.values(), key=lambda info: info.offset):
            if info.offset < end:
                self.fail(f"the data of tensor {info.name} overlaps another's")
            end = info.offset + info.size
        return tensors

    def tensor(self) -> TensorInfo:
        name = self.name(MAX_TENSOR_NAME_BYTES)
        dimensions = self.count("I", MAX_DIMENSIONS, f"dimensions of tensor {name}")
        shape = tuple(self.number("Q") for _ in range(dimensions))
        number, offset = self.number("I"), self.number("Q")
        if number not in TENSOR_TYPES:
            self.fail(f"tensor {name} has the unknown type {number}")
        type_name, block, block_bytes = TENSOR_TYPES[number]
        elements = 1
        for length in shape:
            elements *= length
            if not 0 < length <= MAX_ELEMENTS or elements > MAX_ELEMENTS:
                self.fail(f"tensor {name} has the impossible shape {list(shape)}")
        if shape and shape[0] % block:
            self.fail(f"tensor {name} has rows of {shape[0]}, no multiple of {type_name}'s {block}")
        return TensorInfo(name, shape, type_name, offset, elements // block * block_bytes)

    def value(self, kind: int) -> Any:
        if kind == STRING:
            text = self.text(min(MAX_STRING_BYTES, self.budget))
            self.spend(TEXT_COST + len(text))
            return text
        if kind in SCALARS:
            return self.number(SCALARS[kind])
        if kind != ARRAY:
            self.fail(f"unknown metadata type {kind}")
        item = self.number("I")
        length = self.count("Q", MAX_ARRAY_ITEMS, "array items")
        self.spend(length * (TEXT_COST if item == STRING else NUMBER_COST))
        if item == STRING:
            return self.strings(length)
        if item not in SCALARS:
            self.fail(f"unknown array type {item}")
        code = SCALARS[item]
        return list(struct.unpack(f"<{length}{code}", self.take(length * struct.calcsize(code))))

    def strings(self, length: int) -> list[str]:
        """The loop of :meth:`text` without its calls: a vocabulary has a quarter million of them."""
        content, at, size, left = self.content, self.at, self.size, self.budget
        unpack: Callable[..., tuple[int]] = struct.Struct("<Q").unpack_from
        result: list[str] = []
        for _ in range(length):
            if at + 8 > size:
                self.fail("it is truncated")
            (count,) = unpack(content, at)
            at += 8
            left -= count
            if left < 0:
                self.too_much()
            if count > MAX_STRING_BYTES or at + count > size:
                self.fail("it is truncated, or a string's length is wrong")
            result.append(content[at : at + count].decode("utf-8", "replace"))
            at += count
        self.at, self.budget = at, left
        return result

    def spend(self, cost: int) -> None:
        """What is parsed takes many times the memory that it takes in the file; all of it has one budget."""
        self.budget -= cost
        if self.budget < 0:
            self.too_much()

    def too_much(self) -> NoReturn:
        self.fail("it has more metadata than such a file needs")

    def name(self, limit: int) -> str:
        """Text that llama.cpp sees as we do: for it a NUL ends a name, so that two names could be one."""
        name = self.text(limit)
        if not name or "\0" in name:
            self.fail(f"{shown(name)} is no name")
        return name

    def text(self, limit: int) -> str:
        return self.take(self.count("Q", limit, "bytes of text")).decode("utf-8", "replace")

    def count(self, code: str, limit: int, what: str) -> int:
        value: int = self.number(code)
        if value > limit:
            self.fail(f"{value} {what} are more than the {limit} that are allowed")
        return value

    def number(self, code: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize(code)))[0]

    def take(self, length: int) -> bytes:
        if length > self.size - self.at:
            self.fail("it is truncated")
        piece = self.content[self.at : self.at + length]
        self.at += length
        return piece

    def fail(self, problem: str, hint: str = "copy or make the file again") -> NoReturn:
        raise InputError(f"{self.path} is not a sound GGUF file: {problem}", hint)
