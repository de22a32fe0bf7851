"""What a base's GGUF will look like, before it is made: names, shapes and types of its tensors, and its size.

llama.cpp's own converter and quantiser say so, neither of which reads a weight for it.  The converter stops before it
writes them (:func:`~edgekit_exporters.conversion.converters.outline`).  The quantiser gets its header with a hole for
data, a sparse file, and makes a dry run.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from edgekit_exporters.base import Base
from edgekit_exporters.cache import cache_folder, cached
from edgekit_exporters.conversion.converters import CONVERSION, outline
from edgekit_exporters.gguf.base import FILE_TYPE, Recipe
from edgekit_exporters.gguf.quantize import QUANTIZATIONS, quantized_types
from edgekit_exporters.progress import stage
from edgekit_runtime.formats.gguf import TENSOR_TYPES, GgufFile, TensorInfo, read_gguf

SIZE_BYTES = 8  # at the end of a cached outline: how long the whole file would be
BLOCKS = {name: (elements, size) for name, elements, size in TENSOR_TYPES.values()}


@contextlib.contextmanager
def source_gguf(base: Base) -> Iterator[Path]:
    """The GGUF that ``base`` is quantised from, as a file whose header is right; where it isn't made yet, its data is a
    hole.

    Raises:
        InputError: llama.cpp can't convert the base.
    """
    base = base.stock or base
    if base.gguf is not None:
        yield base.gguf
        return
    folder = base.folder
    target = cache_folder("bases", base.key) / f"outline-{CONVERSION}"
    content = cached(target, lambda temporary: _outline(folder, temporary)).read_bytes()
    with tempfile.TemporaryDirectory(prefix="edgekit-outline-") as scratch:
        whole = Path(scratch, "outline.gguf")
        with whole.open("wb") as stream:
            stream.write(content[:-SIZE_BYTES])
            stream.truncate(int.from_bytes(content[-SIZE_BYTES:], "little"))
        yield whole


def quantized_header(source: Path, recipe: Recipe) -> GgufFile:
    """The header that ``source`` will have once it is quantised; tensors have their new types and sizes.

    Only whether the recipe has an importance matrix matters here, not what is in it.

    Raises:
        UsageError: types that there aren't.
        InputError: llama.cpp doesn't read the source.
    """
    header = read_gguf(source)
    types = quantized_types(
        source, recipe.quantization, imatrix=recipe.imatrix is not None, tensor_types=recipe.tensor_types
    )
    at, tensors = header.data_offset, {}
    for tensor in header.tensors.values():
        made = _as_type(tensor, types.get(tensor.name, tensor.type_name), at)
        tensors[tensor.name] = made
        at = _padded(at + made.size, header.alignment)
    metadata = header.metadata | {FILE_TYPE: QUANTIZATIONS[recipe.quantization]}
    return replace(header, metadata=metadata, tensors=tensors)


def file_bytes(header: GgufFile) -> int:
    """How long a file with this header is."""
    ends = (tensor.offset + tensor.size for tensor in header.tensors.values())
    return _padded(max(ends, default=header.data_offset), header.alignment)


def _outline(folder: Path, destination: Path) -> None:
    with stage("asking the converter for the base's tensors"):
        outline(folder, destination, "--outtype", "f32")


def _as_type(tensor: TensorInfo, type_name: str, offset: int) -> TensorInfo:
    elements, size = BLOCKS[type_name]
    return replace(tensor, type_name=type_name, offset=offset, size=math.prod(tensor.shape) // elements * size)


def _padded(length: int, alignment: int) -> int:
    return -(-length // alignment) * alignment
