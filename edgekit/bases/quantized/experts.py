"""The matrices of all experts of a layer, packed; a router takes one at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from peft.tuners.lora.layer import ParamWrapper
from torch import Tensor, nn

from edgekit.bases.quantized.blocks import QuantizedBlocks
from edgekit.bases.quantized.weight import refuse_change
from edgekit_runtime.errors import InputError

Change = tuple[Tensor, Tensor, float]  # of all experts: left, right, scale of their product


class QuantizedExperts(nn.Module):
    """Stands for a parameter [experts, rows, columns] of transformers' fused experts: ``experts[n]`` is matrix ``n``.

    The blocks get no gradient.  What adapters change is added to a matrix when it is taken.
    """

    def __init__(self, blocks: QuantizedBlocks, experts: int, dtype: torch.dtype, *, transposed: bool = False) -> None:
        """``blocks`` hold the rows of all experts, one after the other; of transposed ones, their columns."""
        super().__init__()
        self.blocks, self.rows, self.transposed = blocks, blocks.rows // experts, transposed
        self.changes: list[Change] = []
        self._dtype: Tensor
        self.register_buffer("_dtype", torch.empty(0, dtype=dtype), persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        """Of the matrices."""
        return self._dtype.dtype

    @property
    def shape(self) -> torch.Size:
        """Of the parameter."""
        rows, columns = (self.blocks.cols, self.rows) if self.transposed else (self.rows, self.blocks.cols)
        return torch.Size((self.blocks.rows // self.rows, rows, columns))

    def __getattr__(self, name: str) -> Any:
        """Refuse what only a tensor has: Llama 4 multiplies all experts at once."""
        if hasattr(Tensor, name) and not hasattr(nn.Module, name):
            raise InputError(
                "transformers multiplies all experts of this model at once, which packed blocks don't allow",
                "use base_precision nf4 or bf16 for this model",
            )
        return super().__getattr__(name)

    def __getitem__(self, number: Any) -> Tensor:
        """[rows, columns] of expert ``number``, dequantised."""
        at = int(number)
        matrix = self.blocks.dequantize(self.dtype, at * self.rows, (at + 1) * self.rows)
        if self.transposed:
            matrix = matrix.T
        for left, right, scale in self.changes:
            matrix = matrix + (left[at] @ right[at]).to(matrix.dtype) * scale
        return matrix


class PackedParamWrapper(ParamWrapper):  # type: ignore[misc]
    """PEFT's wrapper of experts' matrices, over packed ones: no float of all of them is made."""

    @contextlib.contextmanager
    def _activate_lora(self, active_adapters: list[str]) -> Iterator[None]:
        packed: QuantizedExperts = self.get_param()
        added = [self.get_delta_factors(name) for name in active_adapters if name in self.lora_A]
        packed.changes += added
        try:
            yield
        finally:
            packed.changes = packed.changes[: len(packed.changes) - len(added)]

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Refuse it.

        Raises:
            UsageError: packed weights can't be changed.
        """
        refuse_change()


@contextlib.contextmanager
def shown_as_parameters(model: Any) -> Iterator[None]:
    """Let PEFT find packed experts, which looks for parameters, and put a wrapper that knows of them around each."""
    found = [
        (owner, name, child)
        for owner in model.modules()
        for name, child in owner.named_children()
        if isinstance(child, QuantizedExperts)
    ]
    for owner, name, child in found:
        shown = torch.zeros((), dtype=child.dtype, device=child.blocks.device).expand(child.shape)  # takes no memory
        owner._parameters[name] = nn.Parameter(shown, requires_grad=False)
    try:
        yield
    finally:
        for owner, name, _ in found:
            del owner._parameters[name]
        for module in model.modules():
            if type(module) is ParamWrapper and isinstance(module.get_param(), QuantizedExperts):
                module.__class__ = PackedParamWrapper
