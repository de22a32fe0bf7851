"""The file of a prompt adapter: virtual tokens, whose embeddings were trained and stand before a prompt.

Prompt tuning (arXiv 2104.08691) and P-tuning (arXiv 2103.10385) train nothing else.  The GGUF holds one F32 tensor,
[width of an embedding, virtual tokens] in ggml's order.  Its ``general.type`` is none that llama.cpp takes for a LoRA.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.gguf import GgufFile, TensorInfo

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PROMPT_KIND = "prompt"  # of a manifest's entry
GENERAL_TYPE = "prompt adapter"
KEY_GENERAL_TYPE = "general.type"
KEY_VIRTUAL_TOKENS = "edgekit.virtual_tokens"
ROWS = "prompt_embd.weight"
ROW_TYPE = "F32"
MAX_VIRTUAL_TOKENS = 1024


def is_prompt_adapter(gguf: GgufFile) -> bool:
    """Whether a GGUF is the file of a prompt adapter."""
    return gguf.metadata.get(KEY_GENERAL_TYPE) == GENERAL_TYPE


def rows_tensor(gguf: GgufFile) -> TensorInfo:
    """Where a prompt adapter's file has its rows; their values are not looked at.

    Raises:
        InputError: another tensor than one of rows, too many rows, or a count that contradicts the tensor.
    """
    tensor = gguf.tensors.get(ROWS)
    if tensor is None or len(gguf.tensors) != 1:
        found = ", ".join(sorted(gguf.tensors)[:3]) or "none"
        raise unsound(gguf, f"it has to hold the tensor {ROWS} and no other, and holds {found}")
    if tensor.type_name != ROW_TYPE or len(tensor.shape) != 2:
        raise unsound(gguf, f"{ROWS} is {tensor.type_name} {list(tensor.shape)}, and has to be a matrix of {ROW_TYPE}")
    count = tensor.shape[1]
    if not (tensor.shape[0] and 0 < count <= MAX_VIRTUAL_TOKENS):
        raise unsound(gguf, f"it has {count} virtual tokens, and may have 1 to {MAX_VIRTUAL_TOKENS}")
    stated = gguf.metadata.get(KEY_VIRTUAL_TOKENS)
    if stated != count:
        raise unsound(gguf, f"{KEY_VIRTUAL_TOKENS} is {stated}, and {ROWS} has {count} rows")
    return tensor


def read_rows(path: Path, tensor: TensorInfo) -> NDArray[np.float32]:
    """The rows of a file, [virtual tokens, width], in memory of their own."""
    import numpy as np

    width, count = tensor.shape
    with path.open("rb") as stream:
        stream.seek(tensor.offset)
        return np.frombuffer(stream.read(tensor.size), "<f4").astype(np.float32).reshape(count, width)


def check_rows(path: Path, tensor: TensorInfo) -> None:
    """Look at every value.

    Raises:
        InputError: one is NaN or infinite.
    """
    import numpy as np

    if not np.isfinite(read_rows(path, tensor)).all():
        raise InputError(
            f"{path} is not a sound adapter: {ROWS} holds values that are NaN or infinite", "train or export it again"
        )


def unsound(gguf: GgufFile, problem: str) -> InputError:
    """The error of an adapter file that can't be used."""
    return InputError(f"{gguf.path} is not a sound adapter: {problem}", "copy or export it again")
