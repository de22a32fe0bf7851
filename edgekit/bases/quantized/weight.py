"""``module.weight`` of a packed layer: a matrix to look at, never to change."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from edgekit.bases.quantized.blocks import QuantizedBlocks
from edgekit_runtime.errors import UsageError


def refuse_change(*_: object) -> NoReturn:
    """Raise what every attempt to change a packed weight ends in."""
    raise UsageError(
        "the weights of a packed GGUF base can't be changed, so nothing can be merged into them",
        "merge into the float model: load the base with base_precision bf16 or fp32",
    )


class PackedWeight(Tensor):
    """Shape, dtype and device cost nothing; any operation on it sees the dequantised matrix.

    PEFT asks a base layer's weight for device and dtype, DoRA for its norm, and merging adds to ``weight.data``.
    A plain dequantised tensor would serve the first two, and lose what is merged into it without a word.
    """

    blocks: QuantizedBlocks

    @staticmethod
    def __new__(cls, blocks: QuantizedBlocks, dtype: torch.dtype) -> PackedWeight:
        """Look at ``blocks`` as a matrix of ``dtype``."""
        weight: PackedWeight = Tensor._make_wrapper_subclass(
            cls, (blocks.rows, blocks.cols), dtype=dtype, device=blocks.device
        )
        weight.blocks = blocks
        return weight

    def __init__(self, blocks: QuantizedBlocks, dtype: torch.dtype) -> None: ...

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten.detach.default:
            return PackedWeight(args[0].blocks, args[0].dtype)
        if func._schema.is_mutable and isinstance(args[0], PackedWeight):
            refuse_change()
        args, kwargs = tree_map(_floats, (args, kwargs or {}))
        return func(*args, **kwargs)

    # `weight.data += delta` works on a copy of the matrix and then sets `data`.
    data = property(lambda self: self.detach(), refuse_change)

    def __repr__(self, **_: object) -> str:  # type: ignore[override]
        return f"PackedWeight({self.blocks.extra_repr()}, dtype={self.dtype}, device={self.device})"


def _floats(value: Any) -> Any:
    return value.blocks.dequantize(value.dtype) if isinstance(value, PackedWeight) else value
