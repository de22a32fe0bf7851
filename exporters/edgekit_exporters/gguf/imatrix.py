"""Importance matrices: how much each input column of a weight matters to the model's own data.

A quantiser that knows them spends its levels on columns that see large activations.  Values are the mean square of a
matrix's inputs.  Files are llama.cpp's (``tools/imatrix``): a GGUF of type "imatrix" with ``NAME.in_sum2`` and
``NAME.counts`` for each tensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit_runtime.errors import InputError

TYPE = "imatrix"
KEY_DATASETS, KEY_CHUNKS, KEY_CHUNK_SIZE = "imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size"
SUMS, COUNTS = ".in_sum2", ".counts"


@dataclass(frozen=True)
class Importance:
    """Sums of squared inputs of one tensor, float32 [columns], and over how many tokens."""

    sums: NDArray[Any]
    count: int


def write_imatrix(path: Path, entries: Mapping[str, Importance], dataset: str, chunks: int, chunk_size: int) -> None:
    """Write ``entries`` by tensor name, ``blk.0.attn_q.weight`` say.

    Args:
        path: the file.
        entries: by GGUF tensor name.
        dataset: what the activations are of, for the reader's information.
        chunks: how many texts.
        chunk_size: tokens in the longest of them.
    """
    import gguf

    writer = gguf.GGUFWriter(path, "")
    writer.kv_data[0].pop(gguf.Keys.General.ARCHITECTURE, None)  # these files have none
    writer.add_type(TYPE)
    writer.add_array(KEY_DATASETS, [dataset])
    writer.add_uint32(KEY_CHUNKS, chunks)
    writer.add_uint32(KEY_CHUNK_SIZE, chunk_size)
    for name, entry in sorted(entries.items()):
        writer.add_tensor(name + SUMS, entry.sums.astype(np.float32)[None])
        writer.add_tensor(name + COUNTS, np.array([[entry.count]], dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_imatrix(path: Path) -> dict[str, NDArray[Any]]:
    """Mean squares by tensor name, float32 [columns].

    Raises:
        InputError: no imatrix file in GGUF form.
    """
    from edgekit_runtime.formats.gguf import read_gguf

    header = read_gguf(path)
    if header.metadata.get("general.type") != TYPE:
        raise InputError(f"{path} is no importance matrix", "give a GGUF that llama-imatrix or edgekit wrote")
    content = np.memmap(path, dtype=np.uint8, mode="r")

    def floats(name: str) -> NDArray[Any]:
        tensor = header.tensors.get(name)
        if tensor is None or tensor.type_name != "F32":
            raise InputError(f"{path} has no {name}", "write the importance matrix again")
        return np.frombuffer(content[tensor.offset : tensor.offset + tensor.size].tobytes(), dtype=np.float32)

    names = [name.removesuffix(SUMS) for name in header.tensors if name.endswith(SUMS)]
    return {name: floats(name + SUMS) / max(float(floats(name + COUNTS)[0]), 1.0) for name in names}
