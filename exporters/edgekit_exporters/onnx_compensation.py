"""Rounding a matrix column by column, each column making up for the errors of those before it.

Method: GPTQ (Frantar et al. 2022, arXiv:2210.17323), with grids chosen when their block's turn comes, and
blocks taken in the order of how much their inputs weigh.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from edgekit_exporters.onnx_blocks import BLOCK, Blocks, bounds, choose_grids, steps_of

DAMPING = 0.3  # of the mean square of all inputs, added to each: the texts are few
LEAST = 1e-4  # of it, that an input weighs when a grid is chosen: what these texts don't use, others may
SMALL = 384  # columns of matrices that are not taken apart any more
SILENCE = 1e-8  # a mean square that stands for nothing at all


@dataclass(frozen=True)
class Inputs:
    """What is known of a layer's inputs.

    Attributes:
        order: in which columns are rounded, whole blocks of them [in].
        squares: their mean squares, in that order, none of them 0 [in].
        factor: upper triangle U [in, in], in that order: U'U is the inverse of the damped second moments.
    """

    order: Tensor
    squares: Tensor
    factor: Tensor

    @classmethod
    def seen(cls, rows: Tensor) -> Inputs:
        """From inputs [tokens, in], in a multiple of 32."""
        moments = _gram(rows) / rows.shape[0]
        mean = max(float(moments.diagonal().mean()), SILENCE)
        squares = moments.diagonal().clamp(min=LEAST * mean)
        heavy = squares.view(-1, BLOCK).mean(1).argsort(descending=True, stable=True)
        order = torch.arange(len(squares)).view(-1, BLOCK)[heavy].flatten()
        moments = moments[order][:, order]
        moments.diagonal().add_(DAMPING * mean)
        # The factor of the inverse is the inverse of the factor of what is read backwards.
        factor = _inverse(torch.linalg.cholesky(moments.flip(0, 1))).flip(0, 1)
        return cls(order, squares[order], factor)


def compensated(weight: Tensor, inputs: Inputs, bits: int) -> Blocks:
    """Blocks of ``weight`` [out, in] with which these inputs give nearly what they give with it."""
    columns = weight.t()[inputs.order]  # a copy, a column to a row; what is not yet rounded takes up errors
    shifted, errors = torch.empty_like(columns), torch.empty(BLOCK, len(weight))
    scales, zeros = torch.empty(2, len(columns) // BLOCK, len(weight))
    for start in range(0, len(columns), BLOCK):
        stop = start + BLOCK
        group, rounded, factor = columns[start:stop], shifted[start:stop], inputs.factor[start:stop]
        scale, zero = choose_grids(group, inputs.squares[start:stop, None], bits)
        steps, (low, high) = steps_of(scale), bounds(zero, bits)
        weights = factor.diagonal(start).unsqueeze(1)
        shares = factor[:, start:stop] / weights
        for at, (column, codes, error) in enumerate(zip(group, rounded, errors, strict=True)):
            torch.mul(column, steps, out=codes).round_().clamp_(low, high)
            torch.addcmul(column, codes, scale, value=-1, out=error)
            group[at + 1 :].addr_(shares[at, at + 1 :], error, alpha=-1)
        columns[stop:].addmm_(factor[:, stop:].t(), errors / weights, alpha=-1)
        scales[start // BLOCK], zeros[start // BLOCK] = scale, zero
    back = inputs.order.argsort()
    blocks = inputs.order[::BLOCK].argsort()
    codes = shifted.view(-1, BLOCK, len(weight)).add_(zeros.unsqueeze(1)).view_as(shifted).to(torch.uint8)
    return Blocks(
        codes[back].t().contiguous(),
        scales[blocks].t().contiguous(),
        zeros[blocks].t().to(torch.uint8).contiguous(),
        bits,
    )


def _gram(rows: Tensor) -> Tensor:
    """``rows' rows``, each product that stands on both sides of the diagonal computed once."""
    size = rows.shape[1]
    if size <= SMALL:
        return rows.t() @ rows
    left, right = rows.split([size // 2, size - size // 2], 1)
    across = left.t() @ right
    return torch.cat([torch.cat([_gram(left), across], 1), torch.cat([across.t(), _gram(right)], 1)])


def _inverse(lower: Tensor) -> Tensor:
    """Of a lower triangular matrix, by quarters: most of it is matrix products."""
    size = len(lower)
    if size <= SMALL:
        solved: Tensor = torch.linalg.solve_triangular(lower, torch.eye(size), upper=False)
        return solved
    half, found = size // 2, torch.zeros_like(lower)
    first, last = _inverse(lower[:half, :half]), _inverse(lower[half:, half:])
    found[:half, :half], found[half:, half:] = first, last
    found[half:, :half] = -last @ (lower[half:, :half] @ first)
    return found
