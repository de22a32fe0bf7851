"""Changing the metadata of a GGUF file without touching its tensors.

What stays is copied byte for byte, in its old order; offsets of tensors are relative to the data section and so
stay right.  Format: ggml's ``docs/gguf.md``.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekit_runtime.formats.gguf import ARRAY, DEFAULT_ALIGNMENT, MAGIC, SCALARS, STRING, read_gguf

# Numbers of the value types that we write.
UINT32, INT64, FLOAT32, BOOL = (next(number for number, code in SCALARS.items() if code == wanted) for wanted in "Iqf?")


def rewrite_metadata(
    source: Path, destination: Path, changes: Mapping[str, Any], *, copy: Path | None = None, prefix: str = ""
) -> None:
    """Write ``source`` to ``destination`` with other metadata.

    Args:
        source: a GGUF file.
        destination: the new file.
        changes: keys to set: text, bool, int, float, a list of text, or one of whole numbers below 2^32; None takes
            a key out.
        copy: another GGUF, all of whose keys that start with ``prefix`` replace the source's.
        prefix: see ``copy``.

    Raises:
        InputError: ``source`` or ``copy`` is no sound GGUF file.
    """
    header = read_gguf(source)
    pairs = raw_pairs(source)
    if copy is not None:
        pairs = {key: raw for key, raw in pairs.items() if not key.startswith(prefix)}
        pairs |= {key: raw for key, raw in raw_pairs(copy).items() if key.startswith(prefix)}
    for key, value in changes.items():
        if value is None:
            pairs.pop(key, None)
        else:
            pairs[key] = text_bytes(key) + _value(value)
    with source.open("rb") as old, destination.open("wb") as new:
        start, end = header.tensor_table
        old.seek(start)
        table = old.read(end - start)
        head = MAGIC + struct.pack("<IQQ", header.version, len(header.tensors), len(pairs))
        body = head + b"".join(pairs.values()) + table
        alignment = header.alignment or DEFAULT_ALIGNMENT
        new.write(body + bytes(-len(body) % alignment))
        old.seek(header.data_offset)
        shutil.copyfileobj(old, new, 8 * 1024 * 1024)


def raw_pairs(path: Path) -> dict[str, bytes]:
    """Every key with the bytes of its whole key-value pair."""
    with path.open("rb") as stream:
        pairs: dict[str, bytes] = {}
        for key, (start, end) in read_gguf(path).spans.items():
            stream.seek(start)
            pairs[key] = stream.read(end - start)
    return pairs


def _value(value: Any) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", STRING) + text_bytes(value)
    if isinstance(value, bool):
        return struct.pack("<I?", BOOL, value)
    if isinstance(value, int):
        small = 0 <= value < 1 << 32
        return struct.pack("<II", UINT32, value) if small else struct.pack("<Iq", INT64, value)
    if isinstance(value, float):
        return struct.pack("<If", FLOAT32, value)
    if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
        return struct.pack("<IIQ", ARRAY, STRING, len(value)) + b"".join(map(text_bytes, value))
    if isinstance(value, (list, tuple)) and all(isinstance(item, int) for item in value):
        return struct.pack(f"<IIQ{len(value)}I", ARRAY, UINT32, len(value), *value)
    raise TypeError(f"no GGUF metadata type for {type(value).__name__}")


def text_bytes(text: str) -> bytes:
    """A text as GGUF stores it: its length, and its UTF-8."""
    data = text.encode()
    return struct.pack("<Q", len(data)) + data
