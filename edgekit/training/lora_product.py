"""One function for a frozen layer and its LoRA pair, in place of the dozen operations that PEFT makes of them."""

from __future__ import annotations

import types
import weakref
from typing import Any

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from edgekit.bases.quantized import QuantizedBlocks, QuantizedLinear
from edgekit.bases.quantized.linear import product, product_back
from edgekit_exporters.peft.names import ADAPTER

Weights = QuantizedBlocks | Tensor


def compute_pairs_at_once(model: Any) -> int:
    """Change how the plain LoRA layers of PEFT's ``model`` compute, not what: the number of layers changed.

    Layers of other kinds stay as they are: DoRA, activated LoRA, layers of bitsandbytes.
    """
    inputs, count = _Inputs(), 0
    for layer in model.modules():
        if type(layer) is LoraLinear and _is_plain(layer):
            layer.forward = types.MethodType(_forward_with(inputs, layer.forward), layer)
            count += 1
    return count


def _is_plain(layer: Any) -> bool:
    base = layer.base_layer
    return (
        type(base) in (nn.Linear, QuantizedLinear)
        and list(layer.lora_A) == [ADAPTER]
        and not layer.lora_variant
        and not layer.fan_in_fan_out
        and layer.lora_B[ADAPTER].bias is None
        and not (type(base) is nn.Linear and base.weight.requires_grad)
    )


class _Inputs:
    """The last input in the dtype of autocast: layers beside each other (query, key, value) have the same one."""

    def __init__(self) -> None:
        self._of: weakref.ref[Tensor] | None = None
        self._version = -1
        self._narrow: Tensor | None = None

    def narrowed(self, x: Tensor) -> Tensor:
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        if x.dtype == dtype:
            return x
        known = self._narrow
        if (
            known is not None
            and self._of is not None
            and self._of() is x
            and self._version == x._version
            and known.dtype == dtype
            and known.requires_grad == (x.requires_grad and torch.is_grad_enabled())
        ):
            return known
        self._of, self._version, self._narrow = weakref.ref(x), x._version, x.to(dtype)
        return self._narrow

    def forget(self) -> None:
        """Let go of a graph that was used."""
        self._narrow = None


def _forward_with(inputs: _Inputs, whole: Any) -> Any:
    def forward(layer: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        base, narrow = layer.base_layer, inputs.narrowed(x)
        a, b = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
        # Half precision without autocast: PEFT computes pairs in float32 then.
        as_peft = x.dtype != a.dtype and not torch.is_autocast_enabled(x.device.type)
        if args or kwargs or as_peft or layer.disable_adapters or layer.merged or layer.active_adapters != [ADAPTER]:
            result: Tensor = whole(x, *args, **kwargs)
            return result
        weights = base.blocks if isinstance(base, QuantizedLinear) else base.weight
        flat = narrow.reshape(-1, narrow.shape[-1])
        scale, kept = layer.scaling[ADAPTER], None
        dropout = layer.lora_dropout[ADAPTER]
        if isinstance(dropout, nn.Dropout) and dropout.p and layer.training:
            kept = _kept(flat, dropout.p)
            scale /= 1 - dropout.p
        y: Tensor = _Adapted.apply(flat, a, b, weights, scale, kept, inputs)  # type: ignore[no-untyped-call]
        y = y.view(*x.shape[:-1], y.shape[-1])
        return y if base.bias is None else y + base.bias.to(y.dtype)

    return forward


def _kept(x: Tensor, share: float) -> Tensor:
    """Which elements dropout keeps, bool of x's shape.  A drawn number of 64 bits serves four of them."""
    drawn = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device).random_(-(2**63), None)
    return (drawn.view(torch.int16)[: x.numel()] >= round(share * 2**16) - 2**15).view_as(x)


class _Adapted(torch.autograd.Function):
    """x W^T + scale (x kept) A^T B^T for x [rows, in], A [rank, in], B [out, rank]; W and a frozen A have no grad."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, a: Tensor, b: Tensor, weights: Weights, scale: float, kept: Tensor | None, inputs: _Inputs
    ) -> Tensor:
        narrow_a, narrow_b = a.to(x.dtype), b.to(x.dtype)
        y = product(x, weights) if isinstance(weights, QuantizedBlocks) else x @ weights.to(x.dtype).T
        inner = (x if kept is None else x * kept) @ narrow_a.T
        y.addmm_(inner, narrow_b.T, alpha=scale)
        ctx.save_for_backward(x, inner, a, b, kept)
        ctx.weights, ctx.scale, ctx.inputs = weights, scale, inputs
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor, None, None, None, None]:
        x, inner, a, b, kept = ctx.saved_tensors
        ctx.inputs.forget()
        weights: Weights = ctx.weights
        of_inner = (grad @ b.to(grad.dtype)).mul_(ctx.scale)
        of_b = (grad.T @ inner).to(b.dtype).mul_(ctx.scale)
        of_a = (of_inner.T @ (x if kept is None else x * kept)).to(a.dtype) if ctx.needs_input_grad[1] else None
        if not ctx.needs_input_grad[0]:
            return None, of_a, of_b, None, None, None, None
        of_x = product_back(grad, weights) if isinstance(weights, QuantizedBlocks) else grad @ weights.to(grad.dtype)
        narrow_a = a.to(grad.dtype)
        if kept is None:
            of_x.addmm_(of_inner, narrow_a)
        else:
            of_x += (of_inner @ narrow_a) * kept
        return of_x, of_a, of_b, None, None, None, None
