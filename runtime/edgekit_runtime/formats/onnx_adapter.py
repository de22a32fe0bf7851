"""A bounded reader and the trailer of ``.onnx_adapter`` files: no offset, count or size in the file is trusted.

Format: the flatbuffer of onnxruntime's ``AdapterFormat`` (lora/adapter_format/adapter_schema.fbs): a root table with
format, adapter and model version and the parameters, each with name, dimensions, type and raw bytes.  Behind the
flatbuffer, where other readers don't look, edgekit adds what the adapter's manifest entry says: JSON, its length as
u32, and ``edgekit1``.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from edgekit_runtime.errors import InputError
from edgekit_runtime.files.regular import open_regular
from edgekit_runtime.files.strict_json import json_object
from edgekit_runtime.formats.gguf import TensorInfo

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SUFFIX = ".onnx_adapter"
IDENTIFIER = b"TORT"
FORMAT_VERSION = 1
TRAILER_MAGIC = b"edgekit1"
FLOAT = 1  # TensorProto.DataType of onnx
FLOAT_BYTES = 4

MAX_PARAMETERS = 65_536
MAX_NAME_BYTES = 1024
MAX_SIZE = 1 << 31  # of a dimension
MAX_TRAILER_BYTES = 16 * 1024 * 1024
MAX_PADDING = 64  # zeros behind the flatbuffer
_TAIL = len(TRAILER_MAGIC) + 4


@dataclass(frozen=True)
class Parameter:
    """One matrix: float32 [rows, columns], ``offset`` from the start of the file."""

    name: str
    shape: tuple[int, int]
    offset: int

    @property
    def tensor(self) -> TensorInfo:
        """The same as readers of GGUF tell it."""
        rows, columns = self.shape
        return TensorInfo(self.name, self.shape, "F32", self.offset, rows * columns * FLOAT_BYTES)


@dataclass(frozen=True)
class OnnxAdapter:
    """What an adapter file holds; ``facts`` is edgekit's trailer, empty in files of others."""

    path: Path
    model_version: int
    parameters: dict[str, Parameter]
    facts: dict[str, Any]

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """All matrices.  Their memory is the file's: it is read when they are used, and must not be written over."""
        import numpy as np

        content = np.memmap(self.path, dtype=np.uint8, mode="c").view(np.ndarray)
        found = {}
        for each in self.parameters.values():
            rows, columns = each.shape
            piece = content[each.offset : each.offset + rows * columns * FLOAT_BYTES]
            if piece.ctypes.data % FLOAT_BYTES:  # not in files of onnxruntime
                piece = piece.copy()
            found[each.name] = piece.view(np.float32).reshape(rows, columns)
        return found


def model_version(family: str) -> int:
    """The number that ties a file to its base in the flatbuffer itself: 31 bits of the family's sha256."""
    return int.from_bytes(hashlib.sha256(family.encode()).digest()[:4], "little") >> 1


def trailer(facts: dict[str, Any]) -> bytes:
    """What goes behind the flatbuffer."""
    text = json.dumps(facts, sort_keys=True).encode()
    return text + struct.pack("<I", len(text)) + TRAILER_MAGIC


def is_onnx_adapter(path: Path) -> bool:
    """Whether a file is called an ONNX adapter, or begins as one's flatbuffer does."""
    try:
        with open_regular(path) as stream:
            return path.suffix == SUFFIX or stream.read(8)[4:] == IDENTIFIER
    except (OSError, InputError):
        return False


def read_onnx_adapter(path: Path | str) -> OnnxAdapter:
    """Read and check an adapter file.

    Raises:
        InputError: not there, truncated, or with offsets, counts or sizes that can't be right.
    """
    path = Path(path)
    try:
        with open_regular(path) as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _Reader(path, content).read()
    except (OSError, ValueError) as error:  # an empty file can't be mapped
        raise InputError(f"{path} can't be read ({error})", "check the path") from None


class _Reader:
    """Reads numbers at places that the file names, each place checked."""

    def __init__(self, path: Path, content: mmap.mmap) -> None:
        self.path, self.content, self.size = path, content, len(content)
        self.end = 0  # of what has been read: nothing but a trailer may be behind it

    def read(self) -> OnnxAdapter:
        if self.content[4:8] != IDENTIFIER:
            self.fail("it doesn't begin as one")
        facts = self.facts()
        root = self.number("I", 0)
        version = self.scalar(root, 0)
        if version != FORMAT_VERSION:
            self.fail(f"its format version is {version}")
        vector = self.indirect(root, 3)
        count = 0 if vector is None else self.number("I", vector)
        if count > MAX_PARAMETERS:
            self.fail(f"{count} matrices are more than the {MAX_PARAMETERS} that are allowed")
        parameters: dict[str, Parameter] = {}
        for index in range(count):
            assert vector is not None
            place = vector + 4 + 4 * index
            each = self.parameter(place + self.number("I", place))
            if each.name in parameters:
                self.fail(f"{each.name} stands twice")
            parameters[each.name] = each
        if not facts and (self.size - self.end > MAX_PADDING or any(self.content[self.end :])):
            self.fail("behind its matrices is something that is no whole trailer; it may be truncated")
        return OnnxAdapter(self.path, self.scalar(root, 2), parameters, facts)

    def parameter(self, table: int) -> Parameter:
        name = self.data(table, 0, 1, MAX_NAME_BYTES)[0].decode("utf-8", "replace")
        sizes, _ = self.data(table, 1, 8, 16)
        if len(sizes) != 16:
            self.fail(f"{name} is no matrix")
        rows, columns = struct.unpack("<qq", sizes)
        if self.scalar(table, 2) != FLOAT:
            self.fail(f"{name} is not float32")
        if not (0 <= rows < MAX_SIZE and 0 <= columns < MAX_SIZE):
            self.fail(f"{name} has the impossible shape [{rows}, {columns}]")
        place = self.indirect(table, 3)
        length = 0 if place is None else self.number("I", place)
        start = 0 if place is None else place + 4
        if length != rows * columns * FLOAT_BYTES:
            self.fail(f"{name} has {length} bytes, not the {rows * columns * FLOAT_BYTES} of [{rows}, {columns}]")
        if start + length > self.size:
            self.fail(f"the data of {name} ends beyond the file")
        self.end = max(self.end, start + length)
        return Parameter(name, (rows, columns), start)

    def facts(self) -> dict[str, Any]:
        if self.content[-len(TRAILER_MAGIC) :] != TRAILER_MAGIC:
            return {}
        length = self.number("I", self.size - _TAIL)
        start = self.size - _TAIL - length
        if length > MAX_TRAILER_BYTES or start < 8:
            self.fail("its trailer is longer than the file")
        found = json_object(self.content[start : start + length])
        if found is None:
            self.fail("its trailer is not a JSON object")
        return found

    def data(self, table: int, field: int, item: int, limit: int) -> tuple[bytes, int]:
        """Bytes of a vector of ``item`` bytes each, and where they are."""
        place = self.indirect(table, field)
        if place is None:
            return b"", 0
        length = self.number("I", place) * item
        if length > limit:
            self.fail("a name or shape is too long")
        return self.take(place + 4, length), place + 4

    def scalar(self, table: int, field: int) -> int:
        place = self.field(table, field)
        return 0 if place is None else int(self.number("i", place))

    def indirect(self, table: int, field: int) -> int | None:
        place = self.field(table, field)
        return None if place is None else place + int(self.number("I", place))

    def field(self, table: int, number: int) -> int | None:
        """Where a table's field is: tables begin with the distance back to their list of field offsets."""
        offsets = table - self.number("i", table)
        if 4 + 2 * number >= self.number("H", offsets):
            return None
        offset = self.number("H", offsets + 4 + 2 * number)
        return table + offset if offset else None

    def number(self, code: str, place: int) -> Any:
        return struct.unpack("<" + code, self.take(place, struct.calcsize(code)))[0]

    def take(self, place: int, length: int) -> bytes:
        if not 0 <= place <= self.size - length:
            self.fail("it is truncated, or an offset leads out of it")
        self.end = max(self.end, place + length)
        return self.content[place : place + length]

    def fail(self, problem: str) -> NoReturn:
        raise InputError(f"{self.path} is not a sound .onnx_adapter file: {problem}", "copy or export it again")
