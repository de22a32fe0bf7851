"""PEFT's LoRA layers that compute with the blocks their pairs are folded into; the gradient goes straight through."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor
from torch.autograd.function import once_differentiable

from edgekit.bases.folding import Fold, Folding, Pair
from edgekit.bases.quantized import QuantizedBlocks
from edgekit.bases.quantized.linear import product, product_back
from edgekit_exporters.peft.names import ADAPTER, PREFIX
from edgekit_runtime.errors import InputError


class FoldedLinear(LoraLinear):  # type: ignore[misc]
    """A LoRA layer whose weight is the quantized sum of base and pair; without the adapter, its base layer."""

    fold: Fold
    kept_dtype: torch.dtype | None
    _folded: tuple[Tensor, Tensor, QuantizedBlocks] | None

    @property
    def pair(self) -> Pair:
        """A, B and their scale as they are now."""
        return self.lora_A[ADAPTER].weight, self.lora_B[ADAPTER].weight, self.scaling[ADAPTER]

    def keep(self, dtype: torch.dtype) -> None:
        """Unpack blocks once for each state of the pair, as ``dtype``: memory for time."""
        self.kept_dtype, self._folded = dtype, None

    def blocks(self) -> QuantizedBlocks:
        """Blocks of the pair as it is now; made again only when it has changed.

        The numbers are compared, as optimizers of bitsandbytes change them behind torch's back.
        """
        a, b, _ = self.pair
        known = self._folded
        if known is None or not (torch.equal(known[0], a) and torch.equal(known[1], b)):
            blocks = self.fold.blocks(self.pair).to(a.device)
            if self.kept_dtype is not None:
                blocks.keep(self.kept_dtype)
            known = self._folded = (a.detach().clone(), b.detach().clone(), blocks)
        return known[2]

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """[…, in_features] -> […, out_features]."""
        if self.disable_adapters or self.active_adapters != [ADAPTER] or args or kwargs:
            result: Tensor = super().forward(x, *args, **kwargs)
            return result
        device = x.device.type
        if torch.is_autocast_enabled(device):
            x = x.to(torch.get_autocast_dtype(device))
        a, b, scale = self.pair
        flat = x.reshape(-1, x.shape[-1])
        y: Tensor = _Folded.apply(flat, a, b, self.blocks(), scale)  # type: ignore[no-untyped-call]
        y = y.view(*x.shape[:-1], y.shape[-1])
        bias = self.get_base_layer().bias
        return y if bias is None else y + bias.to(y.dtype)


class _Folded(torch.autograd.Function):
    """x W^T for x [rows, in] and W the blocks of W0 + scale B A.

    The gradients of A and B are those without the quantizer, as though it were the identity (straight-through:
    Bengio et al. 2013, arXiv:1308.3432).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor, b: Tensor, blocks: QuantizedBlocks, scale: float) -> Tensor:
        ctx.save_for_backward(x, a, b)
        ctx.blocks, ctx.scale = blocks, scale
        return product(x, blocks)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None, None]:
        x, a, b = ctx.saved_tensors
        of_inner = (grad @ b.to(grad.dtype)).mul_(ctx.scale)
        of_a = (of_inner.T @ x).to(a.dtype)
        of_b = (grad.T @ (x @ a.to(x.dtype).T)).to(b.dtype).mul_(ctx.scale)
        of_x = product_back(grad, ctx.blocks) if ctx.needs_input_grad[0] else None
        return of_x, of_a, of_b, None, None


def fold_layers(model: Any, folding: Folding) -> dict[str, FoldedLinear]:
    """Change PEFT's ``model`` so that each adapted layer computes with folded blocks.

    Returns:
        The layers, by their names in the float model.

    Raises:
        InputError: an adapter of what can't be folded: experts, an embedding, a layer without a tensor of its own.
    """
    layers: dict[str, FoldedLinear] = {}
    for full, layer in model.named_modules():
        if not isinstance(layer, BaseTunerLayer):
            continue
        name = full.removeprefix(PREFIX)
        if type(layer) is not LoraLinear or layer.lora_variant or layer.lora_B[ADAPTER].bias is not None:
            raise InputError(
                f"merged: true trains plain LoRA pairs of linear layers, and {name} has another adapter",
                "leave it out of targets, or train without merged",
            )
        layers[name] = layer
    for name, fold in folding.folds(layers).items():
        layer = layers[name]
        layer.__class__ = FoldedLinear
        layer.fold, layer.kept_dtype, layer._folded = fold, None, None
    return layers


def folded_layers(model: Any) -> list[FoldedLinear]:
    """Those of a model."""
    return [layer for layer in model.modules() if isinstance(layer, FoldedLinear)]


def trained_pairs(model: Any) -> dict[str, Pair]:
    """The pairs of a model's folded layers, by the layers' names in the float model."""
    named = model.named_modules()
    return {name.removeprefix(PREFIX): layer.pair for name, layer in named if isinstance(layer, FoldedLinear)}
