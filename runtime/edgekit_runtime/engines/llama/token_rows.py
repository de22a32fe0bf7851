"""Rows of a base's token embedding, read from its file: features of a text that cost no forward pass."""

from __future__ import annotations

import ctypes
import mmap
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.gguf import TENSOR_TYPES, GgufFile
from edgekit_runtime.formats.route import MOST_WIDTH, unit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EMBEDDING = "token_embd.weight"
COMMON = 4096  # first tokens of a vocabulary: their mean is taken off, as it says nothing of a text
# Weights of a mean as in SIF (Arora et al., 2017): a / (a + p).  Vocabularies are sorted by how early a token was
# merged, so its number stands in for its frequency: p falls as Zipf's law has it.
SMOOTHING, FIRST_RANK = 1e-3, 50.0


class _Traits(ctypes.Structure):
    """ggml's ``ggml_type_traits``, ggml.h."""

    _fields_ = (
        ("type_name", ctypes.c_char_p),
        ("block", ctypes.c_int64),
        ("interleave", ctypes.c_int64),
        ("size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
    )


class TokenRows:
    """The embedding of a GGUF base, row by row; the file is mapped, so only pages of asked rows are read."""

    def __init__(self, header: GgufFile) -> None:
        """Find the embedding.

        Raises:
            InputError: the file has none that can be read.
        """
        tensor = header.tensors.get(EMBEDDING)
        if tensor is None or len(tensor.shape) != 2 or not 0 < tensor.shape[0] <= MOST_WIDTH:
            raise InputError(f"{header.path} has no token embedding that can be read", "convert the base again")
        self.width, self.count = tensor.shape
        number = next(number for number, (name, _, _) in TENSOR_TYPES.items() if name == tensor.type_name)
        self._offset, self._bytes = tensor.offset, tensor.size // self.count
        self._convert = _converter(number)
        with header.path.open("rb") as stream:
            self._content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        self._common: NDArray[np.float32] | None = None
        self._share = sum(1 / (FIRST_RANK + rank) for rank in range(self.count))

    def rows(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Embeddings, [tokens, width]; the same in any order."""
        import numpy as np

        data = b"".join(self._block(token, 1) for token in tokens)
        return self._floats(np.frombuffer(data, np.uint8), len(tokens))

    def _block(self, first: int, count: int) -> bytes:
        """Rows as they are in the file."""
        start = self._offset + first * self._bytes
        return self._content[start : start + count * self._bytes]

    def _floats(self, data: NDArray[np.uint8], count: int) -> NDArray[np.float32]:
        import numpy as np

        if self._convert is None:
            return data.view("<f4").reshape(count, self.width).astype(np.float32)
        found = np.zeros((count, self.width), np.float32)
        self._convert(data.ctypes.data, found.ctypes.data, found.size)
        return found

    def feature(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """The weighted mean of the rows of a text's tokens, [width], of length 1; zeros for no token."""
        import numpy as np

        counts = Counter(token for token in tokens if 0 <= token < self.count)
        known = list(counts)
        if not known:
            return np.zeros(self.width, np.float32)
        if self._common is None:
            count = min(COMMON, self.count)
            first = self._floats(np.frombuffer(self._block(0, count), np.uint8), count)
            self._common = np.average(first, axis=0, weights=self._frequency(range(count))).astype(np.float32)
        weights = SMOOTHING / (SMOOTHING + self._frequency(known)) * [counts[token] for token in known]
        return unit(((self.rows(known) - self._common) * weights[:, None]).sum(axis=0).astype(np.float32))

    def _frequency(self, tokens: Sequence[int]) -> NDArray[np.float64]:
        import numpy as np

        found: NDArray[np.float64] = 1 / (FIRST_RANK + np.asarray(tokens, np.float64)) / self._share
        return found


def _converter(number: int) -> Any:
    """What ggml itself makes floats of a type with; None for F32."""
    if number == 0:
        return None
    from llama_cpp import _ggml

    find = _ggml.libggml.ggml_get_type_traits
    find.argtypes, find.restype = [ctypes.c_int], ctypes.POINTER(_Traits)
    convert = find(number).contents.to_float
    if not convert:
        raise InputError("llama.cpp can't read the base's token embedding", "export with another quantization")
    return convert
