"""Layers over packed GGUF blocks that PEFT wraps like any other ``nn.Linear`` and ``nn.Embedding``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from edgekit.bases.quantized.blocks import QuantizedBlocks
from edgekit.bases.quantized.weight import PackedWeight, refuse_change

# At most so many weights are floats at a time: 16 MB of float32.  What counts is that a vocabulary's matrix is never.
MAX_FLOATS = 1 << 22


class QuantizedLinear(nn.Linear):
    """``y = x W^T + b`` whose W is packed blocks; it gets no gradient.

    The result has the dtype of ``x``, or autocast's.  ``weight`` is a read-only view, dequantised on use.
    """

    bias: nn.Parameter | None  # type: ignore[assignment]

    def __init__(self, blocks: QuantizedBlocks, bias: Tensor | None, dtype: torch.dtype) -> None:
        """``dtype`` is the one that ``weight`` claims to have: what PEFT makes adapters in."""
        nn.Module.__init__(self)
        self.in_features, self.out_features = blocks.cols, blocks.rows
        self.blocks = blocks
        self.bias = None if bias is None else nn.Parameter(bias.to(dtype), requires_grad=False)
        _claim(self, dtype)

    # A property, as a Parameter would hold floats.
    weight = property(lambda self: _view(self), refuse_change)

    def forward(self, x: Tensor) -> Tensor:
        """[…, in_features] -> […, out_features]."""
        device = x.device.type
        if torch.is_autocast_enabled(device):
            x = x.to(torch.get_autocast_dtype(device))
        # Flattened out here: a view made inside the Function could not be changed in place, which PEFT's aLoRA does.
        y: Tensor = _Product.apply(x.reshape(-1, self.in_features), self.blocks)  # type: ignore[no-untyped-call]
        y = y.view(*x.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias.to(y.dtype)


class QuantizedEmbedding(nn.Embedding):
    """An embedding that dequantises only the rows which are looked up."""

    def __init__(
        self, blocks: QuantizedBlocks, dtype: torch.dtype, *, padding_idx: int | None = None, scale: float | None = None
    ) -> None:
        """``dtype`` is that of the result.  ``scale`` multiplies it, as Gemma does."""
        nn.Module.__init__(self)
        self.num_embeddings, self.embedding_dim = blocks.rows, blocks.cols
        self.padding_idx, self.max_norm, self.norm_type = padding_idx, None, 2.0
        self.scale_grad_by_freq = self.sparse = False
        self.blocks, self.scale = blocks, scale
        _claim(self, dtype)

    weight = property(lambda self: _view(self), refuse_change)

    def forward(self, ids: Tensor) -> Tensor:
        """Token numbers […] -> […, embedding_dim]."""
        rows = self.blocks.select(ids.flatten(), self.weight.dtype).view(*ids.shape, self.embedding_dim)
        return rows if self.scale is None else rows * torch.tensor(self.scale, dtype=rows.dtype, device=rows.device)


class _Product(torch.autograd.Function):
    """x W^T for x [rows, in].  Backward dequantises W again rather than keeping its floats."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, blocks: QuantizedBlocks) -> Tensor:
        ctx.blocks = blocks
        return product(x, blocks)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None]:
        return (product_back(grad, ctx.blocks) if ctx.needs_input_grad[0] else None), None


def product(x: Tensor, blocks: QuantizedBlocks) -> Tensor:
    """Return x W^T: [rows, in] -> [rows, out]."""
    pieces = _pieces(blocks, x.dtype)
    if len(pieces) == 1:
        return x @ blocks.dequantize(x.dtype).T
    y = x.new_empty(x.shape[0], blocks.rows)
    for start, stop in pieces:
        y[:, start:stop] = x @ blocks.dequantize(x.dtype, start, stop).T
    return y


def product_back(grad: Tensor, blocks: QuantizedBlocks) -> Tensor:
    """The gradient of :func:`product`'s x: [rows, out] -> [rows, in]."""
    pieces = _pieces(blocks, grad.dtype)
    if len(pieces) == 1:
        return grad @ blocks.dequantize(grad.dtype)
    # Summed in float32: in bfloat16 the rounding errors of many pieces would add up.
    total = torch.zeros(grad.shape[0], blocks.cols, dtype=torch.float32, device=grad.device)
    for start, stop in pieces:
        total += grad[:, start:stop] @ blocks.dequantize(grad.dtype, start, stop)
    return total.to(grad.dtype)


def _pieces(blocks: QuantizedBlocks, dtype: torch.dtype) -> list[tuple[int, int]]:
    if blocks.keeps(dtype):
        return [(0, blocks.rows)]
    step = max(1, MAX_FLOATS // blocks.cols)
    return [(start, min(start + step, blocks.rows)) for start in range(0, blocks.rows, step)]


def _claim(layer: nn.Module, dtype: torch.dtype) -> None:
    """Give a layer without float tensors something that follows ``.to(dtype)``."""
    layer.register_buffer("_dtype", torch.empty(0, dtype=dtype), persistent=False)


def _view(layer: Any) -> PackedWeight:
    return PackedWeight(layer.blocks, layer._dtype.dtype)
