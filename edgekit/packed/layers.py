"""Linear and embedding layers over packed GGUF blocks.

The blocks are all that stays in memory; a layer's weight exists only while it is multiplied with, once in the forward
and once in the backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from edgekit.packed.dequantise import GEOMETRY, dequantise


class PackedWeight:
    """A frozen matrix [rows, columns] as GGUF blocks; several layers may share one."""

    def __init__(self, blocks: torch.Tensor, type_name: str) -> None:
        elements, size = GEOMETRY[type_name]
        self.blocks, self.type_name = blocks, type_name
        self.shape = (blocks.shape[0], blocks.shape[1] // size * elements)

    def dense(self, dtype: torch.dtype, rows: torch.Tensor | None = None) -> torch.Tensor:
        """The matrix, or some of its rows, as numbers."""
        blocks = self.blocks if rows is None else self.blocks[rows]
        return dequantise(blocks, self.type_name, dtype)


class _Multiply(torch.autograd.Function):
    """y = x Wᵀ for a frozen W: the gradient goes to x alone, and nothing but the blocks is kept for it."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: PackedWeight) -> torch.Tensor:
        ctx.packed = weight
        return x @ weight.dense(x.dtype).T

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        (grad,) = grads
        return grad @ ctx.packed.dense(grad.dtype), None


class _Packed(nn.Module):
    """What both layers share: blocks that move with the module and stay out of its state dict."""

    blocks: torch.Tensor

    def _hold(self, weight: PackedWeight, dtype: torch.dtype) -> None:
        self.register_buffer("blocks", weight.blocks, persistent=False)
        self.type_name, self.compute_dtype, self._shape = weight.type_name, dtype, weight.shape

    @property
    def packed(self) -> PackedWeight:
        """The blocks where they are now."""
        return PackedWeight(self.blocks, self.type_name)

    @property
    def weight(self) -> torch.Tensor:
        """Shape, type and device of the weight, without its memory: PEFT asks for them.

        All elements are one and the same zero, so writing to it (merging an adapter) fails instead of being lost.
        """
        return torch.zeros((), dtype=self.compute_dtype, device=self.blocks.device).expand(self._shape)


class PackedLinear(_Packed, nn.Linear):
    """``nn.Linear`` over GGUF blocks."""

    bias: nn.Parameter | None

    def __init__(self, weight: PackedWeight, bias: torch.Tensor | None, dtype: torch.dtype) -> None:
        nn.Module.__init__(self)  # nn.Linear's own would make a dense weight
        self.out_features, self.in_features = weight.shape
        self._hold(weight, dtype)
        self.bias = None if bias is None else nn.Parameter(bias.to(dtype), requires_grad=False)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """[…, in] -> […, out] in the type of autocast, or else of ``input``."""
        kind = input.device.type
        if torch.is_autocast_enabled(kind):
            input = input.to(torch.get_autocast_dtype(kind))
        with torch.autocast(kind, enabled=False):
            output: torch.Tensor = _Multiply.apply(input, self.packed)
            return output if self.bias is None else output + self.bias.to(output.dtype)


class PackedEmbedding(_Packed, nn.Embedding):
    """``nn.Embedding`` over GGUF blocks: only the rows that are looked up are ever unpacked."""

    def __init__(self, weight: PackedWeight, dtype: torch.dtype) -> None:
        nn.Module.__init__(self)
        self.num_embeddings, self.embedding_dim = weight.shape
        self.padding_idx = None
        self._hold(weight, dtype)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Token ids […] -> […, width]."""
        return self.packed.dense(self.compute_dtype, input.reshape(-1)).reshape(*input.shape, -1)
