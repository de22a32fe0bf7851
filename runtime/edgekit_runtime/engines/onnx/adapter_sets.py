"""Loaded adapters in tiles, alone and in the sets that are at work at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edgekit_runtime.engines.base import Stack
from edgekit_runtime.engines.onnx.adapters import Loaded, Side, in_tiles, side_by_side

KEPT = 2  # sets; each is as large as its adapters together
SPARE = 2  # times the bytes that are needed are not too many to be used for a smaller set

Names = frozenset[str]
Shape = tuple[tuple[int, ...], ...]


class AdapterSets:
    """For a graph with masks.

    Whether a set gives the bits of its adapters alone is known by their ranks, once tried.  ``dropped`` tells that sets
    were given up, whose memory others may hold.
    """

    def __init__(self, layers: Mapping[str, tuple[int, ...]]) -> None:
        """With nothing loaded; ``layers`` are shapes of the graph's inputs by name."""
        self.dropped = False
        self._layers = layers
        self._alone: dict[str, Side] = {}
        self._sets: dict[Names, Side] = {}  # the one that was used last stands last
        self._exact: dict[Shape, bool] = {}

    def add(self, name: str, adapter: Loaded) -> None:
        """Take an adapter."""
        self._alone[name] = in_tiles(name, adapter, self._layers)

    def remove(self, name: str) -> None:
        """Free an adapter and the sets that it is in."""
        self._alone.pop(name, None)
        for names in [names for names in self._sets if name in names]:
            self._drop(names)

    def side(self, names: Names) -> Side:
        """These adapters side by side, perhaps with some more."""
        if len(names) == 1:
            return self._alone[next(iter(names))]
        found = self._sets.pop(names, None)
        if found is None:
            wider = self._wider(names)
            if wider is not None:
                return self._sets[wider]
            if len(self._sets) >= KEPT:
                self._drop(next(iter(self._sets)))
            found = side_by_side([self._alone[name] for name in names])
        self._sets[names] = found
        return found

    def exact(self, names: Names) -> bool | None:
        """Whether such a set gives the bits of its adapters alone; None when that has not been tried."""
        known = self._exact.get(self.shape(names))
        return True if known is None and self._wider(names) else known

    def note(self, names: Names, *, exact: bool) -> None:
        """Remember what a trial has shown."""
        self._exact[self.shape(names)] = exact
        if not exact:
            self._drop(names)

    def shape(self, names: Names) -> Shape:
        """What sums in a set depend on: the same for adapters of the same ranks."""
        return tuple(sorted((self._alone[name].grain, *self._alone[name].tiles) for name in names))

    def _drop(self, names: Names) -> None:
        self.dropped |= self._sets.pop(names, None) is not None

    def _wider(self, names: Names) -> Names | None:
        """A larger set at hand that gives the same bits, and costs little more."""
        enough = SPARE * sum(self._alone[name].size for name in names)
        for kept, side in self._sets.items():
            if names < kept and side.size <= enough and self._exact.get(self.shape(kept)):
                return kept
        return None


def names_in(stacks: Iterable[Stack]) -> Names:
    """The adapters of these stacks."""
    return frozenset(name for stack in stacks for name, _ in stack)
