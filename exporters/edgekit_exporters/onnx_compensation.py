"""Rounding a matrix column by column, each column making up for the errors of those before it.

Method: GPTQ (Frantar et al. 2022, arXiv:2210.17323), with grids chosen when their block's turn comes, and
blocks taken in the order of how much their inputs weigh.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from edgekit_exporters.onnx_blocks import BLOCK, Blocks, choose_grids, round_to_grid, steps_of

DAMPING = 0.3  # of the mean square of all inputs, added to each: the texts are few
LEAST = 1e-4  # of it, that an input weighs when a grid is chosen: what these texts don't use, others may
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
        moments = rows.t() @ rows / rows.shape[0]
        mean = max(float(moments.diagonal().mean()), SILENCE)
        squares = moments.diagonal().clamp(min=LEAST * mean)
        heavy = squares.view(-1, BLOCK).mean(1).argsort(descending=True, stable=True)
        order = torch.arange(len(squares)).view(-1, BLOCK)[heavy].flatten()
        moments = moments[order][:, order]
        moments.diagonal().add_(DAMPING * mean)
        # The factor of the inverse is the inverse of the factor of what is read backwards.
        lower = torch.linalg.cholesky(moments.flip(0, 1))
        factor = torch.linalg.solve_triangular(lower, torch.eye(len(order)), upper=False).flip(0, 1)
        return cls(order, squares[order], factor)


def compensated(weight: Tensor, inputs: Inputs, bits: int) -> Blocks:
    """Blocks of ``weight`` [out, in] with which these inputs give nearly what they give with it."""
    columns = weight.t()[inputs.order]  # a copy, a column to a row; what is not yet rounded takes up errors
    codes, scales, zeros = (
        torch.empty(columns.shape, dtype=torch.uint8),
        *torch.empty(2, len(columns) // BLOCK, len(weight)),
    )
    for start in range(0, len(columns), BLOCK):
        stop = start + BLOCK
        group = columns[start:stop]
        scale, zero = choose_grids(group, inputs.squares[start:stop, None], bits)
        steps, errors = steps_of(scale), torch.empty_like(group)
        for at, row in enumerate(inputs.factor[start:stop, start:stop]):
            shifted = round_to_grid(group[at] * steps, zero, bits)
            codes[start + at] = shifted + zero
            errors[at] = (group[at] - shifted * scale) / row[at]
            group[at + 1 :].addr_(row[at + 1 :], errors[at], alpha=-1)
        columns[stop:].addmm_(inputs.factor[start:stop, stop:].t(), errors, alpha=-1)
        scales[start // BLOCK], zeros[start // BLOCK] = scale, zero
    back = inputs.order.argsort()
    blocks = inputs.order[::BLOCK].argsort()
    return Blocks(
        codes[back].t().contiguous(),
        scales[blocks].t().contiguous(),
        zeros[blocks].t().to(torch.uint8).contiguous(),
        bits,
    )
