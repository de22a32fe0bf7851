"""Adapters in memory, and several of them side by side as one: their ranks in a row."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from edgekit_runtime.adapter import KEY_INVOCATION
from edgekit_runtime.engines.base import Stack
from edgekit_runtime.onnx_adapter import read_onnx_adapter
from edgekit_runtime.onnx_base import FUSED, FUSED_PARTS, LORA_A, LORA_B, MASK, MASK_FUSED

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Arrays: TypeAlias = "Mapping[str, NDArray[np.float32]]"
Values: TypeAlias = Mapping[str, Any]  # onnxruntime.OrtValue by input name

ALIGNED = 8  # ranks of an adapter are a multiple of this: as many as a vector unit takes at once


@dataclass(frozen=True)
class Loaded:
    """One adapter: A [in, rank] and B [rank, out] by input name.

    ``size`` is in bytes, ``rank`` the largest, ``invocation`` the tokens from which an activated LoRA works.
    """

    arrays: Arrays
    size: int
    rank: int
    invocation: tuple[int, ...]

    @classmethod
    def read(cls, path: Path) -> Loaded:
        """Read a file.

        Raises:
            InputError: it is not sound.
        """
        file = read_onnx_adapter(path)
        arrays = file.arrays()
        ranks = [array.shape[1] for name, array in arrays.items() if name.endswith(LORA_A)]
        size = sum(array.nbytes for array in arrays.values())
        return cls(arrays, size, max(ranks, default=0), tuple(file.facts.get(KEY_INVOCATION, ())))

    @functools.cached_property
    def values(self) -> Values:
        """The arrays as ONNX Runtime takes them; the memory is the same."""
        return as_values(self.arrays)


@dataclass(frozen=True)
class Side:
    """Adapters side by side, every one with the same ranks in all layers; ``spans`` says which ranks are whose."""

    inputs: Values
    spans: Mapping[str, tuple[int, int]]
    width: int


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


def side_by_side(adapters: Mapping[str, Loaded], layers: Mapping[str, tuple[int, ...]]) -> Side:
    """A and B of each layer for a graph with masks, one adapter after the other along the rank.

    Each is widened with zeros to one rank, so that one mask fits every layer.

    Args:
        adapters: by name.
        layers: shapes of the graph's inputs by name.
    """
    import numpy as np

    spans, at = {}, 0
    for name, adapter in adapters.items():
        width = _width(adapter)
        spans[name] = (at, at + width)
        at += width
    inputs: dict[str, NDArray[np.float32]] = {}
    for layer, shape in layers.items():
        if not layer.endswith((LORA_A, LORA_B)):
            continue
        axis, parts = (1, _parts(layer)) if layer.endswith(LORA_A) else (0, _parts(layer))
        total = np.zeros((shape[0], parts * at) if axis else (parts * at, shape[1]), np.float32)
        for name, adapter in adapters.items():
            own = adapter.arrays.get(layer)
            if own is not None:
                start = parts * spans[name][0]
                place = slice(start, start + own.shape[axis])
                total[(slice(None), place) if axis else place] = own
        inputs[layer] = total
    return Side(as_values(inputs), spans, at)


def masks(side: Side, stacks: Sequence[Stack]) -> Values:
    """What each row's ranks are multiplied with [rows, 1, ranks]: its adapters' scales, zero for all others."""
    import numpy as np

    single = np.zeros((len(stacks), 1, side.width), np.float32)
    for row, stack in enumerate(stacks):
        for name, scale in stack:
            start, stop = side.spans[name]
            single[row, 0, start:stop] = scale
    pieces = [np.tile(single[:, :, start:stop], FUSED_PARTS) for start, stop in side.spans.values()]
    return as_values({MASK: single, MASK_FUSED: np.concatenate([single[:, :, :0], *pieces], axis=2)})


def _width(adapter: Loaded) -> int:
    """Ranks that an adapter needs in a layer that is one of the trained model's."""
    ranks = [-(-array.shape[1] // _parts(name)) for name, array in adapter.arrays.items() if name.endswith(LORA_A)]
    return -(-max(ranks, default=0) // ALIGNED) * ALIGNED


def _parts(name: str) -> int:
    return FUSED_PARTS if name.rpartition(".")[0].endswith(f".{FUSED}") else 1
