"""Cross entropy with smoothed labels, on the tokens of answers alone."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cross_entropy

from edgekit.encoding.encoder import IGNORED


class SmoothedLoss:
    """A ``compute_loss_func`` of transformers' Trainer.

    transformers' own smoothing shifts labels for the text models that it knows by name only, and smooths losses of
    evaluations too, which then compare with no others.
    """

    def __init__(self, model: torch.nn.Module, factor: float) -> None:
        """``factor`` of the probability is for all tokens alike while ``model`` is in training."""
        self._model = model
        self._factor = factor

    def __call__(self, outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        """The mean over tokens with a label, in nats; over ``num_items_in_batch`` where the step has more batches."""
        targets = labels[:, 1:]
        learnt = targets != IGNORED
        logits = outputs.logits[:, :-1][learnt].float()
        factor = self._factor if self._model.training else 0.0
        summed = cross_entropy(logits, targets[learnt], reduction="sum", label_smoothing=factor)
        return summed / (learnt.sum() if num_items_in_batch is None else num_items_in_batch)
