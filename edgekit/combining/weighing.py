"""Parts of a combination with one trainable weight for each layer and part, in a torch model.

The model carries the parts as one adapter of concatenated ranks.  A weight multiplies the columns of B that belong to
its part, so ``B diag(w) A`` is the weighted sum of the parts' updates, and everything else stays frozen.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora.layer import LoraLayer
from torch import Tensor, nn
from torch.nn.utils import parametrize

from edgekit.bases.resolve import loading_name
from edgekit.training.parts import FoundPart, combined_pairs
from edgekit_exporters.base import Base
from edgekit_exporters.peft.combinations import CAT, Combination
from edgekit_exporters.peft.intake import attach, take_in
from edgekit_exporters.peft.names import ADAPTER, PREFIX
from edgekit_exporters.peft.written import write_peft
from edgekit_runtime.errors import InputError


def carrying(model: Any, parts: Sequence[FoundPart], base: Base) -> Any:
    """``model`` with all parts at a weight of 1, as one adapter."""
    with tempfile.TemporaryDirectory(prefix="edgekit-combine-") as scratch:
        whole = combined_pairs(parts, dict.fromkeys((part.name for part in parts), 1.0), Combination(CAT))
        write_peft(whole, base, loading_name(base), Path(scratch))
        return attach(model, take_in(Path(scratch), base))


class _Weights(nn.Module):
    """B [out, rank] of all parts, each part's columns times its weight."""

    _part: Tensor

    def __init__(self, ranks: Sequence[int], start: Sequence[float]) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(start, dtype=torch.float32))
        self.register_buffer("_part", torch.arange(len(ranks)).repeat_interleave(torch.tensor(ranks)))

    def forward(self, b: Tensor) -> Tensor:
        weighted: Tensor = b * self.weights[self._part]
        return weighted


class Weighing:
    """The weights of a model that carries the parts at a weight of 1; nothing else of it can be trained any more."""

    def __init__(self, model: Any, parts: Sequence[FoundPart], start: Sequence[float]) -> None:
        """Freeze ``model`` and give each of its layers weights; ``start`` has one for each part."""
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        self._of: dict[str, tuple[list[str], _Weights]] = {}
        for full, layer in model.named_modules():
            if not isinstance(layer, LoraLayer):
                continue
            name, b = full.removeprefix(PREFIX), layer.lora_B[ADAPTER]
            there = [(part, weight) for part, weight in zip(parts, start, strict=True) if name in part.pairs.layers]
            weights = _Weights([part.pairs.layers[name].rank for part, _ in there], [each for _, each in there])
            parametrize.register_parametrization(b, "weight", weights.to(b.weight.device))
            self._of[name] = [part.name for part, _ in there], weights

    def taken(self) -> dict[str, dict[str, float]]:
        """The weights as they are: part -> layer -> weight.

        Raises:
            InputError: one is no number.
        """
        found: dict[str, dict[str, float]] = {}
        for layer, (parts, weights) in self._of.items():
            if not torch.isfinite(weights.weights).all():
                raise InputError(f"a weight of {layer} is no number any more", "use method cat, with --search")
            for part, weight in zip(parts, weights.weights.tolist(), strict=True):
                found.setdefault(part, {})[layer] = weight
        return found


def check_weighable(parts: Sequence[FoundPart]) -> None:
    """Refuse parts of which a layer can't have a weight of its own in training.

    Raises:
        InputError: an activated LoRA, pairs of experts, or of an embedding.
    """
    for part in parts:
        if part.pairs.invocation:
            raise InputError(
                f"{part.name} is an activated LoRA, which method learned can't weigh", "use cat, with --search"
            )
        for name, layer in part.pairs.layers.items():
            what = "experts" if layer.stacked else "an embedding" if layer.embedding else None
            if what is not None:
                raise InputError(
                    f"{part.name} changes {what} ({name}), which method learned can't weigh", "use cat, with --search"
                )
