"""The matrices of all experts of a layer, packed; a router takes one at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from edgekit.bases.quantized.blocks import QuantizedBlocks
from edgekit_runtime.errors import InputError


class QuantizedExperts(nn.Module):
    """Stands for a parameter [experts, rows, columns] of transformers' fused experts: ``experts[n]`` is matrix ``n``.

    It gets no gradient.
    """

    def __init__(self, blocks: QuantizedBlocks, experts: int, dtype: torch.dtype, *, transposed: bool = False) -> None:
        """``blocks`` hold the rows of all experts, one after the other; of transposed ones, their columns."""
        super().__init__()
        self.blocks, self.rows, self.transposed = blocks, blocks.rows // experts, transposed
        self._dtype: Tensor
        self.register_buffer("_dtype", torch.empty(0, dtype=dtype), persistent=False)

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
        start = int(number) * self.rows
        matrix = self.blocks.dequantize(self._dtype.dtype, start, start + self.rows)
        return matrix.T if self.transposed else matrix
