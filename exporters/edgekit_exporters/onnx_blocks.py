"""Weights as the blocks that ONNX Runtime's MatMulNBits multiplies with, and how they are chosen.

A block is 32 neighbouring input columns of one output row: ``w = scale * (code - zero)`` with whole codes and zero of
4 or 8 bits.  Format: MatMulNBits of ONNX Runtime's contrib operators (docs/ContribOperators.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 32
SHRINKS = 16  # how many narrower ranges than the whole one are tried
NARROWEST = 0.6  # of the whole range
REFITS = 2
PIECE = 1 << 16  # weights that are fitted at a time: what is computed on the way stays in the processor's cache


@dataclass(frozen=True)
class Blocks:
    """A matrix [out, in] in blocks.

    Attributes:
        codes: uint8 [out, in].
        scales: float32 [out, in / 32].
        zeros: uint8 [out, in / 32].
        bits: 4 or 8.
    """

    codes: Tensor
    scales: Tensor
    zeros: Tensor
    bits: int

    def floats(self) -> Tensor:
        """The matrix that the blocks stand for, float32 [out, in]."""
        block = self.codes.shape[1] // self.scales.shape[1]
        shifted = _in_blocks(self.codes.float(), block) - self.zeros.float().unsqueeze(-1)
        return (shifted * self.scales.unsqueeze(-1)).flatten(1)

    @classmethod
    def unpacked(cls, codes: Tensor, scales: Tensor, zeros: Tensor | None, bits: int) -> Blocks:
        """From the inputs of MatMulNBits: what :meth:`packed_codes` and :meth:`packed_zeros` give, scales of any shape.

        ``zeros`` None stands for the middle.
        """
        rows, count = codes.shape[0], codes.shape[1]
        wide = torch.full((rows, count), 2 ** (bits - 1), dtype=torch.uint8)
        if zeros is not None:
            wide = _unpacked(zeros.view(rows, -1), bits)[:, :count]
        return cls(_unpacked(codes, bits).flatten(1), scales.float().view(rows, count), wide, bits)

    def packed_codes(self) -> Tensor:
        """Input B of MatMulNBits: uint8 [out, in / 32, 4 * bits], the first of two codes in the low half of a byte."""
        return _packed(_in_blocks(self.codes), self.bits)

    def packed_zeros(self) -> Tensor:
        """Its zero_points: uint8 [out, bytes of a row]."""
        return _packed(self.zeros, self.bits)


def fit_blocks(weight: Tensor, bits: int, importance: Tensor | None = None, *, block: int = BLOCK) -> Blocks:
    """The blocks nearest to ``weight``: several ranges are tried for each, and each scale is refitted to its codes.

    Args:
        weight: float32 [out, in], in a multiple of 32.
        bits: 4 or 8.
        importance: what an error in each input column weighs [in]; all the same when None.
        block: columns that share a scale.
    """
    rows = max(1, PIECE // weight.shape[1])
    pieces = [_fit(piece, bits, importance, block) for piece in weight.split(rows)]
    codes, scales, zeros = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    return Blocks(codes, scales, zeros, bits)


def _fit(weight: Tensor, bits: int, importance: Tensor | None, block: int) -> tuple[Tensor, Tensor, Tensor]:
    """Codes, scales and zeros."""
    groups = _in_blocks(weight, block)
    weights = torch.ones_like(groups) if importance is None else _in_blocks(importance[None], block).expand_as(groups)
    low, high = groups.amin(-1, keepdim=True).clamp(max=0), groups.amax(-1, keepdim=True).clamp(min=0)
    top = 2**bits - 1
    best: tuple[Tensor, ...] | None = None
    least = torch.full_like(low, torch.inf)
    shrinks = torch.linspace(1.0, NARROWEST, SHRINKS) if bits < 8 else torch.ones(1)
    for shrink in shrinks.tolist():
        scale = ((high - low) * (shrink / top)).clamp(min=torch.finfo(torch.float32).tiny)
        zero = (-low * shrink / scale).round().clamp(0, top)
        for _ in range(REFITS):
            codes = (groups / scale + zero).round().clamp(0, top)
            shifted = codes - zero
            fitted = (weights * shifted * groups).sum(-1, keepdim=True) / (weights * shifted**2).sum(-1, keepdim=True)
            scale = torch.where(fitted.isfinite() & (fitted > 0), fitted, scale)
        error = (weights * (shifted * scale - groups) ** 2).sum(-1, keepdim=True)
        better = error < least
        least = torch.where(better, error, least)
        found = (codes, scale, zero)
        old = found if best is None else best
        best = tuple(torch.where(better, *pair) for pair in zip(found, old, strict=True))
    assert best is not None
    codes, scale, zero = best
    return codes.to(torch.uint8).flatten(1), scale.squeeze(-1), zero.squeeze(-1).to(torch.uint8)


def _in_blocks(matrix: Tensor, block: int = BLOCK) -> Tensor:
    return matrix.view(matrix.shape[0], -1, block)


def _packed(codes: Tensor, bits: int) -> Tensor:
    """Codes [..., n] to bytes [..., ceil(n * bits / 8)]."""
    if bits == 8:
        return codes
    if codes.shape[-1] % 2:
        codes = torch.nn.functional.pad(codes, (0, 1))
    return codes[..., 0::2] | (codes[..., 1::2] << 4)


def _unpacked(packed: Tensor, bits: int) -> Tensor:
    """The inverse of :func:`_packed`, a last code that was added included."""
    if bits == 8:
        return packed
    return torch.stack([packed & 15, packed >> 4], -1).flatten(-2)
