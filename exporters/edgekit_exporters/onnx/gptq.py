"""Rounding a matrix column by column, each column making up for the errors of those before it.

Method: GPTQ (Frantar et al. 2022, arXiv:2210.17323) in the form of QuIP's LDLQ (Chee et al. 2023, arXiv:2307.13304),
which gives the same numbers and needs no inverse; with grids chosen when their block's turn comes, and blocks taken
in the order of how much their inputs weigh.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgekit_exporters.onnx.blocks import BLOCK, Blocks, bounds, choose_grids, steps_of

DAMPING = 0.3  # of the mean square of all inputs, added to each: the texts are few
LEAST = 1e-4  # of it, that an input weighs when a grid is chosen: what these texts don't use, others may
SILENCE = 1e-8  # a mean square that stands for nothing at all
PANEL = 256  # columns of a symmetric matrix that are computed at a time


@dataclass(frozen=True)
class Inputs:
    """What is known of a layer's inputs.

    Attributes:
        order: columns, in whole blocks, the block that weighs least first [in]; the last is rounded first.
        squares: their mean squares, in that order, none of them 0 [in].
        factor: unit lower triangle L [in, in], in that order: the damped second moments are L D L', D diagonal.
    """

    order: Tensor
    squares: Tensor
    factor: Tensor

    @classmethod
    def seen(cls, rows: Tensor) -> Inputs:
        """From inputs [tokens, in], in a multiple of 32."""
        squares = torch.linalg.vector_norm(rows, dim=0, dtype=torch.float32).square() / len(rows)
        mean = max(float(squares.mean()), SILENCE)
        squares = squares.clamp(min=LEAST * mean).view(-1, BLOCK)
        blocks = squares.mean(1).argsort(stable=True)
        order = torch.arange(rows.shape[1]).view(-1, BLOCK)[blocks].flatten()
        moments = _lower_moments(rows.view(len(rows), -1, BLOCK)[:, blocks].flatten(1).float())
        moments.diagonal().add_(DAMPING * mean)
        lower = torch.linalg.cholesky(moments)
        return cls(order, squares[blocks].flatten(), lower.div_(lower.diagonal().clone()))


def _lower_moments(rows: Tensor) -> Tensor:
    """Second moments of inputs [tokens, in] on the diagonal and below; what is above need not be right."""
    size = rows.shape[1]
    found = torch.zeros(size, size)
    for start in range(0, size, PANEL):
        panel = slice(start, start + PANEL)
        torch.mm(rows[:, start:].t(), rows[:, panel], out=found[start:, panel])
    return found.div_(len(rows))


def compensated(weight: Tensor, inputs: Inputs, bits: int) -> Blocks:
    """Blocks of ``weight`` [out, in] with which these inputs give nearly what they give with it."""
    columns = weight.t()[inputs.order]  # a column to a row
    shifted, errors = torch.empty_like(columns), torch.empty_like(columns)
    scales, zeros = torch.empty(2, len(columns) // BLOCK, len(weight))
    for number in reversed(range(len(scales))):
        start, stop = number * BLOCK, (number + 1) * BLOCK
        pull = inputs.factor[start:, start:stop].t()
        group = torch.addmm(columns[start:stop], pull[:, BLOCK:], errors[stop:], out=shifted[start:stop])
        grids = choose_grids(group, inputs.squares[start:stop, None], bits)
        _round_in_turn(group, columns[start:stop], errors[start:stop], pull[:, :BLOCK], grids, bits)
        scales[number], zeros[number] = grids
    codes = shifted.view(-1, BLOCK, len(weight)).add_(zeros.unsqueeze(1)).to(torch.uint8).flatten(0, 1)
    back = inputs.order.argsort()
    blocks = inputs.order[::BLOCK].argsort()
    return Blocks(
        codes[back].t().contiguous(),
        scales[blocks].t().contiguous(),
        zeros[blocks].t().to(torch.uint8).contiguous(),
        bits,
    )


def _round_in_turn(
    group: Tensor, columns: Tensor, errors: Tensor, pull: Tensor, grids: tuple[Tensor, Tensor], bits: int
) -> None:
    """Round one block, from its last column to its first.  In numpy: torch takes longer to start than this takes.

    Args:
        group: the columns with what earlier blocks pull them by; ``code - zero`` afterwards [block, out].
        columns: as they are in the matrix [block, out].
        errors: what is left of them when they are rounded, written here [block, out].
        pull: by how much each column is pulled by the error of each other one, upper triangle [block, block].
        grids: scales and zeros [out].
        bits: 4 or 8.
    """
    scale, zero = grids
    steps, size, least, most = (each.numpy() for each in (steps_of(scale), scale, *bounds(zero, bits)))
    rows, exact, left, weights = (each.numpy() for each in (group, columns, errors, pull.contiguous()))
    product: NDArray[np.float32] = np.empty_like(size)
    for at in reversed(range(len(rows))):
        row = rows[at]
        row += np.dot(weights[at, at + 1 :], left[at + 1 :], out=product)
        row *= steps
        np.rint(row, out=row)
        np.maximum(row, least, out=row)
        np.minimum(row, most, out=row)
        np.subtract(exact[at], np.multiply(row, size, out=product), out=left[at])
