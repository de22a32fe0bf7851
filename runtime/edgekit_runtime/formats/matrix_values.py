"""Whether the values of an adapter's matrices are numbers, and whether they change anything.

Values are looked at as the bits that are in the file: without its sign a float that is NaN or infinite is at least as
large as infinity's bits, and zero is 0.  A file is read in pieces, so that its size costs no memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.gguf import TENSOR_TYPES, TensorInfo

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PIECE = 1 << 20  # values that are looked at together


@dataclass(frozen=True)
class _Float:
    """How a float is stored: as which unsigned number, its bits but for the sign, and those of infinity."""

    code: str
    unsigned: int
    infinity: int


_F16 = _Float("<u2", 0x7FFF, 0x7C00)
_FLOATS = {"F32": _Float("<u4", 0x7FFF_FFFF, 0x7F80_0000), "F16": _F16, "BF16": _Float("<u2", 0x7FFF, 0x7F80)}
Q8_0 = "Q8_0"  # blocks of an F16 scale and 32 whole numbers
_Q8_0_BYTES = next(size for name, _, size in TENSOR_TYPES.values() if name == Q8_0)
_SCALE_BYTES = 2
MATRIX_TYPES = (*_FLOATS, Q8_0)


def check_values(path: Path, pairs: Iterable[tuple[TensorInfo, TensorInfo]]) -> None:
    """Look at every value of A and B of each pair.

    Raises:
        InputError: one is NaN or infinite; or in each pair all of A or all of B is zero.
    """
    import numpy as np

    content = np.memmap(path, dtype=np.uint8, mode="r").view(np.ndarray)
    alive = False
    for pair in pairs:
        zero = False
        for tensor in pair:
            finite, empty = _look(content[tensor.offset : tensor.offset + tensor.size], tensor.type_name)
            if not finite:
                raise InputError(
                    f"{path} is not a sound adapter: {tensor.name} holds values that are NaN or infinite",
                    "train or export it again",
                )
            zero |= empty
        alive |= not zero
    if not alive:
        raise InputError(
            f"{path} changes nothing: in each of its pairs A or B is all zeros", "train it, or export it again"
        )


def _look(content: NDArray[np.uint8], type_name: str) -> tuple[bool, bool]:
    """Whether all values of a matrix are finite, and whether all are zero."""
    if type_name == Q8_0:
        return _look_at_blocks(content)
    kind = _FLOATS[type_name]
    peak = _peak(content.view(kind.code), kind)
    return peak < kind.infinity, peak == 0


def _look_at_blocks(content: NDArray[np.uint8]) -> tuple[bool, bool]:
    """The same for Q8_0: a value is its block's scale times a whole number."""
    import numpy as np

    blocks = content.reshape(-1, _Q8_0_BYTES)
    finite = zero = True
    for start in range(0, len(blocks), PIECE // 32):
        piece = blocks[start : start + PIECE // 32]
        scales = np.ascontiguousarray(piece[:, :_SCALE_BYTES]).view(_F16.code)[:, 0]
        finite &= _peak(scales, _F16) < _F16.infinity
        zero &= not ((scales & _F16.unsigned != 0) & piece[:, _SCALE_BYTES:].any(axis=1)).any()
    return finite, zero


def _peak(values: NDArray[np.unsignedinteger], kind: _Float) -> int:
    """The largest value's bits, its sign left out."""
    pieces = (values[start : start + PIECE] for start in range(0, len(values), PIECE))
    return max((int((piece & kind.unsigned).max()) for piece in pieces), default=0)
