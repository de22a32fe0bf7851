"""Adapters in memory, and several of them side by side as one: their ranks in a row."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from edgekit_runtime.engines.base import Stack
from edgekit_runtime.formats.adapter import AdapterFacts
from edgekit_runtime.formats.onnx_adapter import read_onnx_adapter
from edgekit_runtime.formats.onnx_base import FUSED, FUSED_PARTS, LORA_A, LORA_B, MASK, MASK_FUSED, TILE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Arrays: TypeAlias = "Mapping[str, NDArray[np.float32]]"
Values: TypeAlias = Mapping[str, Any]  # onnxruntime.OrtValue by input name

STRIDE = 128 // TILE  # tiles


@dataclass(frozen=True)
class Matrices:
    """A and B by input name."""

    arrays: Arrays

    @functools.cached_property
    def values(self) -> Values:
        """The arrays as ONNX Runtime takes them; the memory is the same."""
        return as_values(self.arrays)

    @functools.cached_property
    def size(self) -> int:
        """In bytes."""
        return sum(array.nbytes for array in self.arrays.values())


@dataclass(frozen=True)
class Loaded(Matrices):
    """One adapter: A [in, rank] and B [rank, out].

    ``rank`` is the largest that a layer of the trained model has (0 when the file doesn't say), ``invocation`` the
    tokens from which an activated LoRA works.
    """

    rank: int
    invocation: tuple[int, ...]

    @classmethod
    def read(cls, path: Path) -> Loaded:
        """Read a file.

        Raises:
            InputError: it is not sound.
        """
        facts = AdapterFacts.read(path)
        return cls(read_onnx_adapter(path).arrays(), facts.stated_rank or 0, facts.invocation)


Span: TypeAlias = "tuple[int, int]"  # first tile and the one behind the last


@dataclass(frozen=True)
class Side(Matrices):
    """Adapters for a graph with masks, side by side, each in whole tiles of ranks.

    Attributes:
        arrays: A [tiles, in, 16] and B [ranks, out], of every layer of the graph.
        spans: whose tiles are which, in layers that are one of the trained model's and in fused ones.
        grain: ranks of each layer of the trained model where they are everywhere the same power of two, else 0.
    """

    spans: Mapping[str, tuple[Span, Span]]
    grain: int = 0

    @property
    def tiles(self) -> tuple[int, int]:
        """How many, of layers that are one of the trained model's and of fused ones."""
        ends = [(single[1], fused[1]) for single, fused in self.spans.values()]
        return max(ends, default=(0, 0))


def as_values(arrays: Arrays) -> Values:
    """Arrays as ONNX Runtime takes them."""
    import onnxruntime

    return {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()}


def added(adapters: Sequence[tuple[Loaded, float]]) -> Values:
    """The inputs of a graph without masks for adapters that are applied together, each with its scale."""
    import numpy as np

    if len(adapters) == 1 and adapters[0][1] == 1:
        return adapters[0][0].values
    total: dict[str, NDArray[np.float32]] = {}
    for adapter, scale in adapters:
        for name, array in adapter.arrays.items():
            axis, own = (1, array) if name.endswith(LORA_A) else (0, array * np.float32(scale))
            total[name] = np.concatenate([total[name], own], axis) if name in total else own
    return as_values(total)


def in_tiles(name: str, adapter: Loaded, layers: Mapping[str, tuple[int, ...]]) -> Side:
    """One adapter for a graph with masks.

    Args:
        name: of the adapter.
        adapter: read from its file.
        layers: shapes of the graph's inputs by name.
    """
    import numpy as np

    sizes = _tiles(adapter, fused=False), _tiles(adapter, fused=True)
    arrays: dict[str, NDArray[np.float32]] = {}
    for layer in {each.removesuffix(LORA_A) for each in layers if each.endswith(LORA_A)}:
        tiles = sizes[_is_fused(layer)]
        a = np.zeros((layers[layer + LORA_A][1], tiles * TILE), np.float32)
        b = np.zeros((tiles * TILE, layers[layer + LORA_B][1]), np.float32)
        if layer + LORA_A in adapter.arrays:
            own_a, own_b = adapter.arrays[layer + LORA_A], adapter.arrays[layer + LORA_B]
            a[:, : own_a.shape[1]], b[: own_b.shape[0]] = own_a, own_b
        arrays[layer + LORA_A] = np.ascontiguousarray(a.reshape(len(a), tiles, TILE).transpose(1, 0, 2))
        arrays[layer + LORA_B] = b
    return Side(arrays, {name: ((0, sizes[0]), (0, sizes[1]))}, _grain(adapter))


def side_by_side(sides: Sequence[Side]) -> Side:
    """Several of :func:`in_tiles` as one.

    Matrix products begin new sums at multiples of 128 ranks, so that no layer's ranks may stand across one where they
    don't when they are alone.  Powers of two never do when the larger come first; others get the room that they need.
    """
    import numpy as np

    ordered = sorted(sides, key=lambda side: (side.grain, side.tiles), reverse=True)
    spans: dict[str, tuple[Span, Span]] = {}
    ends = [0, 0]
    for side in ordered:
        places = []
        for fused, width in enumerate(side.tiles):
            start = ends[fused]
            if not side.grain and start % STRIDE + width > STRIDE:
                start += -start % STRIDE
            ends[fused] = start + width
            places.append((start, ends[fused]))
        spans |= dict.fromkeys(side.spans, (places[0], places[1]))

    def joined(name: str) -> NDArray[np.float32]:
        fused, ranks = _is_fused(name), TILE if name.endswith(LORA_B) else 1
        total = np.zeros((ends[fused] * ranks, *ordered[0].arrays[name].shape[1:]), np.float32)
        for side in ordered:
            start, stop = spans[next(iter(side.spans))][fused]
            total[start * ranks : stop * ranks] = side.arrays[name]
        return total

    return Side({name: joined(name) for name in ordered[0].arrays}, spans)


def masks(side: Side, stacks: Sequence[Stack]) -> Values:
    """What each row's tiles are multiplied with [tiles, rows, 1]: its adapters' scales, zero for all others."""
    import numpy as np

    found = {}
    for fused, name in enumerate((MASK, MASK_FUSED)):
        found[name] = np.zeros((side.tiles[fused], len(stacks), 1), np.float32)
        for row, stack in enumerate(stacks):
            for adapter, scale in stack:
                start, stop = side.spans[adapter][fused]
                found[name][start:stop, row] = scale
    return as_values(found)


def _tiles(adapter: Loaded, *, fused: bool) -> int:
    """Tiles that an adapter needs in the widest of its layers that are fused, or that aren't."""
    ranks = [a.shape[1] for name, a in adapter.arrays.items() if name.endswith(LORA_A) and _is_fused(name) == fused]
    return -(-max(ranks, default=0) // TILE)


def _grain(adapter: Loaded) -> int:
    rank = adapter.rank
    widths = {a.shape[1] for name, a in adapter.arrays.items() if name.endswith(LORA_A)}
    even = rank.bit_count() == 1 and widths <= {rank * parts for parts in range(1, FUSED_PARTS + 1)}
    return rank if even else 0


def _is_fused(name: str) -> bool:
    """Whether a layer, or one of its inputs, is several of the trained model's."""
    return name.removesuffix(LORA_A).removesuffix(LORA_B).endswith(f".{FUSED}")
