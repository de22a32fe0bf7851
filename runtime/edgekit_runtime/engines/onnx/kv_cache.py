"""What a graph keeps of sequences: one buffer for each key and value input, which it reads and extends in place, and
one for each recurrent state, which it reads and gives anew.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from edgekit_runtime.engines import probe
from edgekit_runtime.engines.onnx.graph import present_name
from edgekit_runtime.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class KvCache:
    """A row for each sequence.

    Attributes:
        lengths: tokens that each sequence holds.
    """

    def __init__(self, inputs: Sequence[Any], states: Sequence[Any], sequences: int, context: int) -> None:
        """Set aside ``sequences`` rows of ``context`` tokens; pages are taken when used.

        Each of the graph's ``inputs`` gets float32 [sequences, heads, context + 1, head size], each of ``states`` what
        its shape says for each sequence.

        Raises:
            InputError: there is not enough memory.
        """
        import numpy as np

        self._inputs, self._state_inputs, self._context = inputs, states, context
        self.lengths = [0] * sequences
        try:
            self._cells: list[NDArray[np.float32]] = [
                np.zeros((sequences, each.shape[1], context + 1, each.shape[3]), np.float32) for each in inputs
            ]
            self._states = [np.zeros((sequences, *each.shape[1:]), np.float32) for each in states]
        except (MemoryError, ValueError):  # more than numpy can count
            raise InputError(
                f"no memory for {sequences} x {context} tokens of context", "ask for a smaller context"
            ) from None
        self._values: dict[tuple[int, int], list[tuple[str, str, Any, Any]]] = {}
        self._given: dict[tuple[int, int], list[NDArray[np.float32]]] = {}

    @property
    def recurrent(self) -> bool:
        """Whether sequences have states, which can't be cut back."""
        return bool(self._states)

    def values(self, first: int, count: int) -> list[tuple[str, str, Any, Any]]:
        """Rows ``first`` and on: the graph's input and output, and the memory of both, the same for keys and values."""
        import numpy as np
        import onnxruntime

        if (first, count) not in self._values:
            make = onnxruntime.OrtValue.ortvalue_from_numpy
            rows = slice(first, first + count)
            given = [np.zeros_like(state[rows]) for state in self._states]
            found = []
            for each, cells in zip(self._inputs, self._cells, strict=True):
                value = make(cells[rows])
                found.append((each.name, present_name(each.name), value, value))
            for each, state, new in zip(self._state_inputs, self._states, given, strict=True):
                found.append((each.name, present_name(each.name), make(state[rows]), make(new)))
            self._values[first, count], self._given[first, count] = found, given
        return self._values[first, count]

    def keep(self, first: int, count: int, wanted: Sequence[int]) -> None:
        """Take the states that a step over these rows has given; rows that aren't ``wanted`` stay as they were."""
        for state, new in zip(self._states, self._given[first, count], strict=True):
            for row in wanted:
                state[row] = new[row - first]

    def forget(self, sequence: int, start: int) -> bool:
        """Drop what a sequence holds from a position on; False when only all of it could be dropped, and was."""
        is_cut = 0 < start < self.lengths[sequence]
        if self.recurrent and (is_cut or start == 0):
            for state in self._states:
                state[sequence] = 0
            start = 0
        self.lengths[sequence] = min(self.lengths[sequence], start)
        return not (self.recurrent and is_cut)

    def save(self, sequence: int) -> bytes:
        """A sequence's length as u32, then its cells layer by layer, keys and values in turn, then its states."""
        length = self.lengths[sequence]
        parts = [*(each[sequence, :, :length] for each in self._cells), *(each[sequence] for each in self._states)]
        return length.to_bytes(4, "little") + b"".join(part.tobytes() for part in parts)

    def restore(self, sequence: int, state: bytes) -> bool:
        """Put what was saved into an empty sequence; False, and empty still, when it doesn't fit."""
        import numpy as np

        length = int.from_bytes(state[:4], "little")
        if length > self._context:
            return False
        places = [*(each[sequence, :, :length] for each in self._cells), *(each[sequence] for each in self._states)]
        if len(state) != 4 + sum(place.nbytes for place in places):
            return False
        starts = itertools.accumulate((place.nbytes for place in places), initial=4)
        for place, start in zip(places, starts, strict=False):
            place[:] = np.frombuffer(state, np.float32, place.size, start).reshape(place.shape)
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
        return [*(each[:, :, : probe.TOKENS + 1] for each in self._cells), *self._states]

    def close(self) -> None:
        """Free the memory."""
        self._values.clear()
        self._given.clear()
        self._cells, self._states = [], []
