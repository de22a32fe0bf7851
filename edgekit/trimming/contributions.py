"""What each module's pair contributes to a trained adapter: its share of the fall in loss.

A gate before each pair goes from 0 (the bare base) to 1 (the adapter).  The loss falls along this way by the integral
of its gradient, and the gradient has a part for each gate: integrated gradients (Sundararajan et al. 2017, arXiv
1703.01365).  So the parts of all modules add up to what the adapter gains, and two passes over a few rows tell them
all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora.layer import LoraLayer
from torch import Tensor

from edgekit.encoding.encoder import IGNORED, Encoded
from edgekit.training.answer_loss import learn_answers_only
from edgekit.training.step import keep_floats
from edgekit_exporters.peft.names import ADAPTER, PREFIX
from edgekit_exporters.progress import staged

POINTS = (0.25, 0.75)  # of the way: the middles of its halves
ROWS = 8
BATCH_ROWS = 8


class Contributions:
    """A trained adapter in torch whose pairs can be left out and weighed; its model is of no other use any more."""

    def __init__(self, model: Any, collator: Any, examples: Sequence[Encoded]) -> None:
        """Freeze ``model``, PEFT's around a base with a loss; ``examples`` are what is weighed on."""
        learn_answers_only(model)
        keep_floats(model)
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        self._model = model.eval()
        self._layers = {
            name.removeprefix(PREFIX): layer for name, layer in model.named_modules() if isinstance(layer, LoraLayer)
        }
        self._scales = {name: float(layer.scaling[ADAPTER]) for name, layer in self._layers.items()}
        starts = range(0, len(examples), BATCH_ROWS)
        self._batches = [collator(examples[start : start + BATCH_ROWS]) for start in starts]
        self._labels = sum(label != IGNORED for each in examples for label in each["labels"])

    @property
    def modules(self) -> list[str]:
        """Names of the modules that the adapter changes."""
        return list(self._layers)

    def of(self, kept: Sequence[str]) -> dict[str, float]:
        """By how much each of ``kept`` lowers the loss (nats per answer token) while all others are left out."""
        parts = dict.fromkeys(kept, 0.0)
        for point in staged(POINTS, f"weighing {len(kept)} matrices", len(POINTS)):
            gates = {name: torch.tensor(point, requires_grad=True) for name in kept}
            for batch in self._batches:
                with self._gated(gates):  # each batch has a graph of its own
                    self._loss(batch).backward()
            for name, gate in gates.items():
                if gate.grad is not None:
                    parts[name] -= float(gate.grad) / len(POINTS)
        return parts

    def loss(self, kept: Sequence[str]) -> float:
        """Loss of the rows with these pairs alone, nats per answer token."""
        with self._gated(dict.fromkeys(kept, torch.ones(()))), torch.no_grad():
            return sum(float(self._loss(batch)) for batch in self._batches)

    def _loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The batch's part of the mean over all rows' labels."""
        device = next(self._model.parameters()).device
        inputs = {name: each.to(device) for name, each in batch.items()}
        count = int((inputs["labels"] != IGNORED).sum())
        loss: Tensor = self._model(**inputs).loss * (count / self._labels)
        return loss

    @contextmanager
    def _gated(self, gates: Mapping[str, Tensor]) -> Iterator[None]:
        for name, layer in self._layers.items():
            layer.scaling[ADAPTER] = self._scales[name] * gates[name].to(_device(layer)) if name in gates else 0.0
        try:
            yield
        finally:
            for name, layer in self._layers.items():
                layer.scaling[ADAPTER] = self._scales[name]


def _device(layer: Any) -> torch.device:
    found: torch.device = layer.lora_A[ADAPTER].weight.device
    return found
