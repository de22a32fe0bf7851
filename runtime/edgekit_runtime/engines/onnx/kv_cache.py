"""The KV cache: one buffer for each key and value input, which the graph reads and extends in place."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from edgekit_runtime.engines import probe
from edgekit_runtime.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class KvCache:
    """A row for each sequence.

    Attributes:
        lengths: tokens that each sequence holds.
    """

    def __init__(self, inputs: Sequence[Any], sequences: int, context: int) -> None:
        """Set aside ``sequences`` rows of ``context`` tokens; pages are taken when used.

        Each of the graph's ``inputs`` gets float32 [sequences, heads, context + 1, head size].

        Raises:
            InputError: there is not enough memory.
        """
        import numpy as np

        self._inputs, self._context = inputs, context
        self.lengths = [0] * sequences
        try:
            self._cells: list[NDArray[np.float32]] = [
                np.zeros((sequences, each.shape[1], context + 1, each.shape[3]), np.float32) for each in inputs
            ]
        except (MemoryError, ValueError):  # more than numpy can count
            raise InputError(
                f"no memory for {sequences} x {context} tokens of context", "ask for a smaller context"
            ) from None
        self._values: dict[tuple[int, int], list[tuple[str, str, Any]]] = {}

    def values(self, first: int, count: int) -> list[tuple[str, str, Any]]:
        """Rows ``first`` and on, with the names of the graph's input and output, which are the same memory."""
        import onnxruntime

        if (first, count) not in self._values:
            make = onnxruntime.OrtValue.ortvalue_from_numpy
            self._values[first, count] = [
                (each.name, each.name.replace("past_key_values", "present"), make(cells[first : first + count]))
                for each, cells in zip(self._inputs, self._cells, strict=True)
            ]
        return self._values[first, count]

    def forget(self, sequence: int, start: int) -> None:
        """Drop what a sequence holds from a position on."""
        self.lengths[sequence] = min(self.lengths[sequence], start)

    def save(self, sequence: int) -> bytes:
        """A sequence's length as u32, then its cells layer by layer, keys and values in turn."""
        length = self.lengths[sequence]
        return length.to_bytes(4, "little") + b"".join(each[sequence, :, :length].tobytes() for each in self._cells)

    def restore(self, sequence: int, state: bytes) -> bool:
        """Put what was saved into an empty sequence; False, and empty still, when it doesn't fit."""
        import numpy as np

        length = int.from_bytes(state[:4], "little")
        shapes = [(each.shape[1], length, each.shape[3]) for each in self._cells]
        sizes = [heads * length * width * 4 for heads, _, width in shapes]
        if length > self._context or len(state) != 4 + sum(sizes):
            return False
        for cells, shape, start in zip(self._cells, shapes, itertools.accumulate(sizes, initial=4), strict=False):
            count = shape[0] * shape[1] * shape[2]
            cells[sequence, :, :length] = np.frombuffer(state, np.float32, count, start).reshape(shape)
        self.lengths[sequence] = length
        return True

    @contextmanager
    def scratch(self) -> Iterator[None]:
        """Rows to try something on; they are afterwards what they were."""
        kept, lengths = [each.copy() for each in self._probed()], list(self.lengths)
        try:
            yield
        finally:
            for cells, saved in zip(self._probed(), kept, strict=True):
                cells[:] = saved
            self.lengths[:] = lengths

    def _probed(self) -> list[NDArray[np.float32]]:
        return [each[:, :, : probe.TOKENS + 1] for each in self._cells]

    def close(self) -> None:
        """Free the memory."""
        self._values.clear()
        self._cells = []
