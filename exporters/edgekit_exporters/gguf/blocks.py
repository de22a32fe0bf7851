"""Rows as blocks: llama.cpp's own arithmetic for one tensor, and files in which some tensors have other blocks.

:mod:`~edgekit_exporters.gguf.quantize` makes whole files.  Both call ggml's ``ggml_quantize_chunk``, which works row by
row, so rows have the same blocks here as there, to the bit.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import math
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit_exporters.gguf.quantize import TENSOR_TYPE_NUMBERS
from edgekit_runtime.errors import EdgekitError
from edgekit_runtime.formats.gguf import TENSOR_TYPES, TensorInfo, read_gguf

Blocks = NDArray[np.uint8]


def quantized_rows(
    rows: NDArray[np.float32], type_name: str, importance: NDArray[Any] | None = None, *, threads: int = 1
) -> Blocks:
    """The blocks of ``rows``, as llama.cpp's quantiser makes them.

    Args:
        rows: [n, columns], all finite; columns are whole blocks of the type.
        type_name: of a tensor, ``Q4_0`` say.
        importance: of each column, from an importance matrix.
        threads: that share the rows.

    Returns:
        [n, bytes of a row]
    """
    number = TENSOR_TYPE_NUMBERS[type_name]
    _, elements, size = TENSOR_TYPES[number]
    count, columns = rows.shape
    assert columns % elements == 0  # else the quantiser would have chosen another type
    source = np.ascontiguousarray(rows, dtype=np.float32)
    weights = None if importance is None else _address(np.ascontiguousarray(importance, dtype=np.float32))
    blocks = np.empty((count, columns // elements * size), np.uint8)
    each = max(1, math.ceil(count / threads))

    def quantize(start: int) -> None:
        part, into = source[start : start + each], blocks[start : start + each]
        made = _quantize_chunk()(number, _address(part), _address(into), 0, len(part), columns, weights)
        assert made == into.nbytes

    starts = range(0, count, each)
    if len(starts) < 2:
        for start in starts:
            quantize(start)
    else:
        with ThreadPoolExecutor(threads) as pool:  # ctypes lets go of the interpreter's lock
            list(pool.map(quantize, starts))
    return blocks


def tensor_blocks(path: Path, info: TensorInfo) -> Blocks:
    """A tensor's bytes in a file: [rows, bytes of a row], not to be changed; a vector counts as one row."""
    rows = math.prod(info.shape[1:])
    return np.memmap(path, np.uint8, "r", info.offset, (rows, info.size // rows))


def write_with_blocks(source: Path, destination: Path, changes: Iterable[tuple[str, Blocks]]) -> None:
    """Copy the GGUF file ``source``, with other blocks of the same types in some tensors.

    Args:
        source: the file.
        destination: the new one.
        changes: name of a tensor, and all its blocks.
    """
    shutil.copyfile(source, destination)
    tensors = read_gguf(source).tensors
    with destination.open("r+b") as stream:
        for name, blocks in changes:
            info = tensors[name]
            if blocks.nbytes != info.size:
                raise EdgekitError(f"{name} has {info.size} bytes in {source}, and is to get {blocks.nbytes}")
            stream.seek(info.offset)
            stream.write(blocks.tobytes())


def blocks_digest(changes: Iterable[tuple[str, Blocks]]) -> str:
    """sha256 over names and blocks of tensors, in the order of their names; each is asked for once."""
    digest = hashlib.sha256()
    for name, blocks in changes:
        digest.update(f"{name}:{blocks.nbytes}:".encode())
        digest.update(np.ascontiguousarray(blocks).data)
    return digest.hexdigest()


def file_blocks_digest(path: Path, names: Iterable[str]) -> str:
    """:func:`blocks_digest` of tensors as a file has them."""
    tensors = read_gguf(path).tensors
    return blocks_digest((name, tensor_blocks(path, tensors[name])) for name in sorted(names))


def _address(array: NDArray[Any]) -> Any:
    return array.ctypes.data_as(ctypes.c_void_p)


@functools.cache
def _quantize_chunk() -> Any:
    """The function of ggml, in the library that the engine uses."""
    from llama_cpp import llama_cpp

    from edgekit_runtime.engines.llama.library import start_backend

    start_backend()
    function = llama_cpp._lib.ggml_quantize_chunk
    function.restype = ctypes.c_size_t
    function.argtypes = [
        *(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p),
        *(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p),
    ]
    return function
