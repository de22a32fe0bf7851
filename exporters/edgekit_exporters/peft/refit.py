"""The best plain LoRA for an adapter that isn't one.

DoRA and its like change a weight by a matrix of full rank.  Of all matrices of rank r, the truncated singular value
decomposition is closest to it (Eckart and Young 1936); what is lost is measured here, and by the proof in answers.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch

from edgekit_exporters.base import Base
from edgekit_exporters.hf.float_model import load_float
from edgekit_exporters.peft.canonical import CanonicalAdapter, LowRank, folded
from edgekit_exporters.peft.intake import take_in
from edgekit_exporters.peft.merge import merged_model
from edgekit_runtime.errors import InputError


def refit(path: Path, base: Base, rank: int) -> tuple[CanonicalAdapter, float]:
    """Fit pairs of ``rank`` to what merging the adapter changes in the base.

    Returns:
        The adapter, and its relative error: the Frobenius norm of what is left, divided by that of the change.

    Raises:
        InputError: not an adapter of this base, or it also changes what isn't the weight of a linear layer.
    """
    adapter = take_in(path, base)
    model = load_float(base.folder)
    before = {name: value.detach().clone() for name, value in model.named_parameters(remove_duplicate=False)}
    linear = {f"{name}.weight": name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    merged = merged_model(model, adapter)
    layers: dict[str, LowRank] = {}
    left = total = 0.0
    for name, parameter in merged.named_parameters(remove_duplicate=False):
        change = parameter.detach() - before[name]
        if not change.any():
            continue
        if name not in linear:
            raise InputError(f"{path} changes {name}, which no LoRA pair can stand for", "export it with --mode merged")
        layers[linear[name]], lost = _truncated(change, rank)
        left += lost
        total += float(change.square().sum())
    if not layers:
        raise InputError(f"{path} changes nothing in {base.name}", "train it first")
    return CanonicalAdapter(layers), math.sqrt(left / total)


def _truncated(change: torch.Tensor, rank: int) -> tuple[LowRank, float]:
    """The closest pair, and the square of the norm of what is left."""
    u, s, v = torch.linalg.svd(change, full_matrices=False)
    root = s[:rank].sqrt()  # both halves of like size: F16 keeps them equally well
    return folded(root[:, None] * v[:rank], u[:, :rank] * root), float(s[rank:].square().sum())
