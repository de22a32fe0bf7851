"""DELLA (Deep, Bhardwaj and Poria 2024, arXiv 2406.11617): drop by magnitude, elect a sign, fuse.  PEFT has it not."""

from __future__ import annotations

from collections.abc import Sequence

import torch

SPREAD = 0.15  # of the drop probabilities within a row: the paper's epsilon


def della(updates: Sequence[torch.Tensor], weights: Sequence[float], density: float) -> torch.Tensor:
    """The fused update, [out, in].

    Electing and fusing are PEFT's, as in TIES: what has the majority's sign counts, weighted, and is averaged.

    Args:
        updates: one a part, [out, in].
        weights: one a part.
        density: mean share of numbers that are kept, above 0 and at most 1; drawn from torch's generator.
    """
    from peft.utils.merge_utils import calculate_majority_sign_mask, disjoint_merge, reshape_weight_task_tensors

    kept = torch.stack([_mag_prune(each, density) for each in updates])
    elected = calculate_majority_sign_mask(kept)
    weighted = kept * reshape_weight_task_tensors(kept, torch.tensor(weights, dtype=kept.dtype))
    fused: torch.Tensor = disjoint_merge(weighted, elected)
    return fused


def _mag_prune(update: torch.Tensor, density: float) -> torch.Tensor:
    """MAGPRUNE: in each row the smallest number is dropped likeliest; what stays is divided by its chance to stay."""
    spread = min(SPREAD, density, 2 * (1 - density))  # so that no chance leaves 0 … 1, and none is 0
    count = update.shape[-1]
    place = update.abs().argsort(-1).argsort(-1).to(update.dtype)  # 0 for the smallest
    stays = density - spread / 2 + spread * place / max(1, count - 1)
    return torch.where(torch.bernoulli(stays).bool(), update / stays, 0.0)
