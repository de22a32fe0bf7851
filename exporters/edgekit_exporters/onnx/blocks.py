"""Weights as the blocks that ONNX Runtime's MatMulNBits multiplies with, and how they are chosen.

A block is 32 neighbouring input columns of one output row: ``w = scale * (code - zero)`` with whole codes and zero of
4 or 8 bits.  Format: MatMulNBits of ONNX Runtime's contrib operators (docs/ContribOperators.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 32
SHRINKS = 6  # how many ranges are tried, from the whole one to the narrowest
NARROWEST = 0.7  # of the whole range
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


def block_bytes(rows: int, columns: int, bits: int) -> int:
    """What a matrix takes: packed codes, float16 scales, packed zeros."""
    blocks = columns // BLOCK
    return rows * (columns * bits // 8 + 2 * blocks + -(-blocks * bits // 8))


def fit_blocks(weight: Tensor, bits: int, importance: Tensor | None = None, *, block: int = BLOCK) -> Blocks:
    """The blocks nearest to ``weight``, each weight by itself, on the grids of :func:`choose_grids`.

    Args:
        weight: float32 [out, in], in a multiple of ``block``.
        bits: 4 or 8.
        importance: what an error in each input column weighs, above 0 [in]; all the same when None.
        block: columns that share a scale.
    """
    if importance is None:
        importance = torch.ones(weight.shape[1])
    rows = max(1, PIECE // weight.shape[1])
    pieces = [_fit(piece, bits, importance, block) for piece in weight.split(rows)]
    codes, scales, zeros = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    return Blocks(codes, scales, zeros, bits)


def choose_grids(groups: Tensor, importance: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Scale and zero of blocks: several ranges are tried for each, and each scale is refitted to its codes.

    Args:
        groups: the weights of each block [block, ...]: sums over the first dimension are the fast ones.
        importance: what an error in them weighs, above 0, of a shape that broadcasts with ``groups``.
        bits: 4 or 8.

    Returns:
        Scales, float16's numbers as float32, and zeros, whole numbers as float32; both [...].
    """
    low, high = groups.amin(0).clamp(max=0), groups.amax(0).clamp(min=0)
    top = 2**bits - 1
    shrinks = torch.linspace(1.0, NARROWEST, SHRINKS) if bits < 8 else torch.ones(1)
    ranges = shrinks.view(-1, *[1] * low.dim()) / top
    scale = ((high - low) * ranges).clamp_(min=torch.finfo(torch.float32).tiny)  # [shrinks, ...]
    zero = (-low * (top * ranges) / scale).round_().clamp_(0, top)
    shifted = (groups.unsqueeze(1) * (1 / scale)).round_().clamp_(*bounds(zero, bits))  # [block, shrinks, ...]
    along = ((groups * importance).unsqueeze(1) * shifted).sum(0).clamp_(min=0)
    size = (shifted.square_() * importance.unsqueeze(1)).sum(0)
    gain = (along.square() / size).nan_to_num_(0.0)  # by how much the refitted scale makes the error smaller
    best = gain.max(0, keepdim=True).indices
    refitted = (along / size).nan_to_num_(0.0)
    return refitted.gather(0, best)[0].half().float(), zero.gather(0, best)[0]


def bounds(zero: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Least and greatest ``code - zero``."""
    return -zero, 2**bits - 1 - zero


def steps_of(scale: Tensor) -> Tensor:
    """What to multiply weights with to have them in steps; 0 where the scale is."""
    return torch.where(scale > 0, 1 / scale, 0.0)


def _fit(weight: Tensor, bits: int, importance: Tensor, block: int) -> tuple[Tensor, Tensor, Tensor]:
    """Codes, scales and zeros."""
    groups = _in_blocks(weight, block).permute(2, 0, 1).contiguous()
    scale, zero = choose_grids(groups, importance.view(-1, block).t().unsqueeze(1), bits)
    codes = (groups * steps_of(scale)).round_().clamp_(*bounds(zero, bits)).add_(zero)
    return codes.to(torch.uint8).permute(1, 2, 0).flatten(1), scale, zero.to(torch.uint8)


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
