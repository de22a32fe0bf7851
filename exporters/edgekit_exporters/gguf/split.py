"""GGUF models in several files, as llama.cpp's split tool names them: NAME-00001-of-00003.gguf and so on.

The first file has the metadata, each one some of the tensors.  Everything above works with one file, so one is made of
them, once, in the cache: what they hold is copied byte for byte.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, NoReturn, TypeVar

from edgekit_exporters.cache import cache_folder, cached
from edgekit_exporters.gguf.metadata import raw_pairs, text_bytes
from edgekit_exporters.progress import staged
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.gguf import MAGIC, TENSOR_TYPES, GgufFile, TensorInfo, read_gguf

# llama.cpp's keys: how many files there are, which one this is, counted from 0, and tensors in all of them.
PREFIX = "split."
KEY_COUNT, KEY_NUMBER, KEY_TENSORS = f"{PREFIX}count", f"{PREFIX}no", f"{PREFIX}tensors.count"
_NAME = re.compile(r"(?P<name>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
_TYPE_NUMBERS = {name: number for number, (name, *_) in TENSOR_TYPES.items()}
Value = TypeVar("Value")
_BUFFER = 8 * 1024 * 1024


def parts_of(path: Path) -> list[Path]:
    """All files of the model that ``path`` is a file of, in their order; itself where it is whole.

    Raises:
        InputError: ``path`` is no sound GGUF file, some are missing, or its name doesn't tell those of the others.
    """
    count = read_gguf(path).metadata.get(KEY_COUNT, 1)
    if count <= 1:
        return [path]
    found = _NAME.fullmatch(path.name)
    if found is None or int(found["count"]) != count:
        raise InputError(
            f"{path} is one of {count} files of a model, and its name doesn't tell the others",
            f"give them the names that they came with: NAME-00001-of-{count:05}.gguf and so on",
        )
    parts = [path.with_name(f"{found['name']}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1)]
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        raise InputError(
            f"{path} is one of {count} files of a model, and {', '.join(missing)} is missing beside it",
            "download all of them into one folder",
        )
    return parts


def joined_header(path: Path) -> GgufFile:
    """The header of a model, as it is once its files are one; offsets of tensors are those in their own files.

    Raises:
        InputError: as :func:`parts_of`, or the files are not of one model.
    """
    return _whole([read_gguf(part) for part in parts_of(path)])


def joined(path: Path) -> Path:
    """The one file of a model: ``path`` itself where it is whole, else made of its parts in the cache.

    Raises:
        InputError: as :func:`joined_header`.
    """
    parts = parts_of(path)
    if len(parts) == 1:
        return path
    state = "".join(f"{part.resolve()}:{part.stat().st_size}:{part.stat().st_mtime_ns}" for part in parts)
    key = hashlib.sha256(state.encode()).hexdigest()[:32]
    name = _NAME.sub(r"\g<name>", path.name)
    return cached(cache_folder("joined", key) / f"{name}.gguf", lambda temporary: _join(parts, temporary))


def _whole(headers: Sequence[GgufFile]) -> GgufFile:
    first = headers[0]
    tensors: dict[str, TensorInfo] = {}
    for number, header in enumerate(headers):
        said = header.metadata.get(KEY_COUNT, 1), header.metadata.get(KEY_NUMBER, 0)
        if said != (len(headers), number):
            _mixed(header, f"it says that it is number {said[1] + 1} of {said[0]}")
        twice = tensors.keys() & header.tensors.keys()
        if twice:
            _mixed(header, f"another one has the tensor {min(twice)} too")
        tensors |= header.tensors
    expected = first.metadata.get(KEY_TENSORS, len(tensors))
    if expected != len(tensors):
        _mixed(first, f"there are {len(tensors)} tensors in all, and it speaks of {expected}")
    return replace(
        first,
        metadata=_unsplit(first.metadata),
        types=_unsplit(first.types),
        spans=_unsplit(first.spans),
        tensors=tensors,
    )


def _unsplit(table: dict[str, Value]) -> dict[str, Value]:
    return {key: value for key, value in table.items() if not key.startswith(PREFIX)}


def _mixed(header: GgufFile, problem: str) -> NoReturn:
    raise InputError(f"{header.path} doesn't belong to the files beside it: {problem}", "download all of them again")


def _join(parts: Sequence[Path], destination: Path) -> None:
    headers = [read_gguf(part) for part in parts]
    whole = _whole(headers)
    pairs = [raw for key, raw in raw_pairs(parts[0]).items() if key in whole.metadata]
    table, size = bytearray(), 0
    for info in whole.tensors.values():
        table += text_bytes(info.name) + struct.pack(f"<I{len(info.shape)}Q", len(info.shape), *info.shape)
        table += struct.pack("<IQ", _TYPE_NUMBERS[info.type_name], size)
        size += -(-info.size // whole.alignment) * whole.alignment
    head = MAGIC + struct.pack("<IQQ", whole.version, len(whole.tensors), len(pairs)) + b"".join(pairs) + table
    with destination.open("wb") as new:
        new.write(head + bytes(-len(head) % whole.alignment))
        for header in staged(headers, f"joining the files of {headers[0].path.name} (once)", len(headers), "file"):
            with header.path.open("rb") as old:
                for info in header.tensors.values():
                    old.seek(info.offset)
                    _copy(old, new, info.size)
                    new.write(bytes(-info.size % whole.alignment))


def _copy(old: BinaryIO, new: BinaryIO, size: int) -> None:
    while size:
        piece = old.read(min(size, _BUFFER))
        new.write(piece)
        size -= len(piece)
