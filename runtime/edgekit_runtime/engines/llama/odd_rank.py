"""A LoRA file with a higher rank, filled up with zeros: the same change of the base, from other kernels.

*An odd rank*, so that products come out the same in batches of any size.

ggml multiplies one column by dot products and several at once by llamafile's blocked kernels, which add in another
order.  Those kernels take only matrices whose sides are multiples of 4 (``llamafile_sgemm`` in ggml-cpu); one
more row of zeros in A and column in B keeps them off and changes no result.

*A whole step*, so that products are quick.  ggml's dot product of F16 rows takes STEP numbers at a time with AVX2, and
each number that is left over alone.  Rows of B are as long as the rank, so with a rank of 16 all are left over.
"""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from edgekit_runtime.engines.llama.sheets import Sheets
from edgekit_runtime.files.regular import chunks_of, open_regular
from edgekit_runtime.formats.adapter import EMBEDDING, KEY_ALPHA, SUFFIX_A, SUFFIX_B
from edgekit_runtime.formats.gguf import MAGIC, GgufFile

FLOATS = {"F32": "<f4", "F16": "<f2"}
NUMBERS = {"F32": 0, "F16": 1}  # ggml's, of the types
STEP = 32  # GGML_F16_STEP with AVX2; other instruction sets have other steps, and weren't measured


@contextmanager
def with_odd_rank(source: GgufFile, *, wanted: bool, sheets: Sheets | None = None) -> Iterator[Path]:
    """A file like ``source`` with one more rank when its rank is a multiple of 4; the file itself otherwise.

    The copy is F32 and lives in memory where the system can do that.  Files that can't be treated this way (several
    ranks, other types) are left alone: the engine measures what they do.
    """
    rank = _common_rank(source) if wanted else None
    if rank is None or rank % 4:
        yield source.path
        return
    with _copy(source, rank, rank + 1, "F32", sheets or Sheets()) as copy:
        yield copy


@contextmanager
def with_whole_step(source: GgufFile, *, wanted: bool, sheets: Sheets | None = None) -> Iterator[Path]:
    """A file like ``source`` with a rank of STEP when its rank is lower and all its numbers are F16; else itself."""
    rank = _common_rank(source) if wanted else None
    if rank is None or rank >= STEP or {each.type_name for each in source.tensors.values()} != {"F16"}:
        yield source.path
        return
    with _copy(source, rank, STEP, "F16", sheets or Sheets()) as copy:
        yield copy


@contextmanager
def _copy(source: GgufFile, rank: int, wider: int, kind: str, sheets: Sheets) -> Iterator[Path]:
    """``source`` with a rank of ``wider`` and numbers of a ``kind``, in memory where the system can do that."""
    if hasattr(os, "memfd_create"):
        with sheets.sheet() as stream:
            _write(source, rank, wider, kind, stream)
            yield Path(f"/proc/self/fd/{stream.fileno()}")
    else:
        with tempfile.TemporaryDirectory(prefix="edgekit-adapter-") as folder:
            copy = Path(folder, source.path.name)
            with copy.open("w+b") as stream:
                _write(source, rank, wider, kind, stream)
            yield copy


def _common_rank(source: GgufFile) -> int | None:
    """The rank that all pairs have; None when they differ or are of types that are not floats."""
    ranks = set()
    for name, tensor in source.tensors.items():
        # An embedding's A is stored transposed.
        if tensor.type_name not in FLOATS or len(tensor.shape) != 2 or name.startswith(EMBEDDING):
            return None
        ranks.add(tensor.shape[1] if name.endswith(SUFFIX_A) else tensor.shape[0])
    return ranks.pop() if len(ranks) == 1 else None


def _write(source: GgufFile, rank: int, wider: int, kind: str, stream: BinaryIO) -> None:
    """Metadata as it stands but for alpha, which grows with the rank, then the wider tensors.

    One tensor at a time goes through a small buffer, which stays in the CPU's cache.

    Raises:
        InputError: the file is shorter than its header says.
    """
    import numpy as np

    number_type, more = np.dtype(FLOATS[kind]), wider - rank
    tables, shapes, offset = [], [], 0
    for tensor in source.tensors.values():
        columns, rows = tensor.shape  # ggml's first dimension last
        shape = (rows, columns + more) if tensor.name.endswith(SUFFIX_B) else (rows + more, columns)
        name = tensor.name.encode()
        place = struct.pack("<IQQIQ", 2, *reversed(shape), NUMBERS[kind], offset)
        tables.append(struct.pack("<Q", len(name)) + name + place)
        size = shape[0] * shape[1] * number_type.itemsize
        shapes.append((shape, size + -size % source.alignment))
        offset += shapes[-1][1]
    with open_regular(source.path) as given:
        begin = given.read(source.data_offset)
        pairs = [_pair(source, key, begin[start:end], wider / rank) for key, (start, end) in source.spans.items()]
        head = MAGIC + struct.pack("<IQQ", source.version, len(tables), len(pairs)) + b"".join([*pairs, *tables])
        stream.write(head + bytes(-len(head) % source.alignment))
        buffer = np.zeros(max(length for _, length in shapes), np.uint8)
        for tensor, (shape, length) in zip(source.tensors.values(), shapes, strict=True):
            columns, rows = tensor.shape
            given.seek(tensor.offset)
            content = b"".join(chunks_of(given, tensor.size, str(source.path)))
            padded = np.ndarray(shape, number_type, buffer)
            padded[:rows, :columns] = np.frombuffer(content, FLOATS[tensor.type_name]).reshape(rows, columns)
            padded[rows:] = 0
            padded[:, columns:] = 0
            buffer[padded.nbytes : length] = 0
            stream.write(buffer[:length].data)
    stream.truncate()
    stream.flush()


def _pair(source: GgufFile, key: str, content: bytes, times: float) -> bytes:
    if key == KEY_ALPHA:  # its last four bytes are the F32 value
        return content[:-4] + struct.pack("<f", source.metadata[key] * times)
    return content
