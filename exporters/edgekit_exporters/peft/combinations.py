"""The methods that make one adapter of several, by PEFT's names.

W_i is the update ``B_i @ A_i`` of a part, w_i its weight:

* ``cat``: sum of w_i W_i, exactly, at the sum of the ranks.
* ``learned``: the same sum with a w_i of its own for each layer, found by training (CAT of LoRA Soups,
  arXiv 2410.13025).
* ``svd``: the closest pair of a rank to that sum.
* ``linear``: (sum of √w_i B_i) @ (sum of √w_i A_i).  That is not the sum above: it also holds √(w_i w_j) B_i @ A_j.
* ``ties`` (arXiv 2306.01708), ``dare_linear``, ``dare_ties`` (2311.03099) and ``magnitude_prune``: on A and on B by
  themselves, as PEFT does; with ``_svd`` at the end on W_i, and then the closest pair of a rank.
* ``della`` (2406.11617): on W_i, see :mod:`~edgekit_exporters.peft.della`.
"""

from __future__ import annotations

from dataclasses import dataclass

CAT, LEARNED, SVD, LINEAR, DELLA = "cat", "learned", "svd", "linear", "della"
EXACT = (CAT, LEARNED)  # the sum of the weighted updates, at the sum of their ranks
_PRUNING = ("ties", "dare_linear", "dare_ties", "magnitude_prune")
ON_UPDATES = (SVD, *(f"{each}_svd" for each in _PRUNING), DELLA)  # methods that end at a rank
PRUNES = (*_PRUNING, *(f"{each}_svd" for each in _PRUNING), DELLA)  # methods with a density
ELECTS = ("ties", "ties_svd", "dare_ties", "dare_ties_svd", DELLA)  # methods that elect a sign before they weigh
COMBINATIONS = (*EXACT, SVD, LINEAR, *(name for each in _PRUNING for name in (each, f"{each}_svd")), DELLA)


@dataclass(frozen=True)
class Combination:
    """How adapters become one.

    Attributes:
        method: one of :data:`COMBINATIONS`.
        rank: of the result, where the method ends at a rank; None for the largest rank of the parts.
        density: share of numbers that methods which prune keep.
        seed: of what they draw.
    """

    method: str = CAT
    rank: int | None = None
    density: float = 0.5
    seed: int = 0
