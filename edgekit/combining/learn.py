"""Weights of a combination that are trained: one for each layer and part (CAT of LoRA Soups, arXiv 2410.13025).

transformers' Trainer fits them as it fits adapters, on rows of all parts in turn.  The weights of the lowest loss on
rows that are held out stay; those it starts from are among them.
"""

from __future__ import annotations

import logging
import math
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers

from edgekit.bases.torch_model import load_base
from edgekit.bases.weights import Weights
from edgekit.combining.rows import Mixed, mixed_examples
from edgekit.combining.weighing import Weighing, carrying, check_weighable
from edgekit.data import data_digest
from edgekit.encoding.images import let_see, row_images
from edgekit.project import Adapter, Project
from edgekit.project.combined import STEPS
from edgekit.training.evaluations import EVAL_LOSS
from edgekit.training.lora import trainable_base
from edgekit.training.outlook import TimeTold, tell_plan
from edgekit.training.parts import FoundPart
from edgekit.training.progress import Progress
from edgekit.training.record import curve
from edgekit.training.trackers import tracking_arguments
from edgekit.training.trainer import adapter_trainer, uses_checkpointing
from edgekit_exporters.base import Base
from edgekit_exporters.progress import stage
from edgekit_runtime.errors import InputError

log = logging.getLogger(__name__)

RATE = 0.05  # how far a weight moves in a step, at first: from 1 to 0 takes a few dozen
BATCH_ROWS = 4
EVALUATIONS = 10
PATIENCE = 3  # evaluations without a lower loss


@dataclass(frozen=True)
class Learned:
    """Trained weights.

    Attributes:
        weights: part -> layer -> weight.
        steps: that were made.
        kept_step: whose weights these are; 0 for those that training has started from.
        loss: of the rows held out with these weights, nats per answer token.
        loss_before: with the weights at the start.
        rows: examples that were trained on, and ``held_out`` those that were not.
        data: sha256 over the training rows of all parts.
        losses: step by step, as :func:`~edgekit.training.record.curve` gives them.
        seconds: that training took.
    """

    weights: Mapping[str, Mapping[str, float]]
    steps: int
    kept_step: int
    loss: float
    loss_before: float
    rows: int
    held_out: int
    data: str
    losses: list[dict[str, float]]
    seconds: float

    def mean(self, part: str) -> float:
        """Of a part's weights, for tables."""
        return round(statistics.fmean(self.weights[part].values()), 3)

    def as_dict(self) -> dict[str, Any]:
        """For run.json, which has losses and the weights of parts elsewhere."""
        return {key: value for key, value in vars(self).items() if key not in ("weights", "losses")}


def learn_weights(
    project: Project, adapter: Adapter, parts: Sequence[FoundPart], base: Base, weights: Weights
) -> Learned:
    """Train the weights of the combination ``adapter``.

    Args:
        project: a loaded project file.
        adapter: with ``combined:``; its weights are the start, its ``seed`` draws the rows.
        parts: of which each has training rows.
        base: that they adapt.
        weights: of the base, as devices run it.

    Raises:
        InputError: parts that can't be weighed, or bad rows; losses that are no numbers.
        KeyboardInterrupt: after Ctrl-C; nothing is written.
    """
    assert adapter.combined is not None
    check_weighable(parts)
    steps, images = adapter.combined.steps or STEPS, row_images(project, base)
    with stage("reading the rows of the parts"):
        mixed = mixed_examples(project, parts, base, images, steps * BATCH_ROWS, adapter.seed)
    model = let_see(load_base(base, weights), images)
    model = carrying(trainable_base(model, weights.precision, checkpointing=uses_checkpointing()), parts, base)
    weighing = Weighing(model, parts, [adapter.combined.parts[part.name] for part in parts])
    return _fitted(project, adapter, model, weighing, mixed, steps, data_digest(_sources(project, parts)))


def _sources(project: Project, parts: Sequence[FoundPart]) -> list[Any]:
    return [project.data_for(part.name).train for part in parts]


def _fitted(
    project: Project, adapter: Adapter, model: Any, weighing: Weighing, mixed: Mixed, steps: int, data: str
) -> Learned:
    best = _Best(weighing)
    with tempfile.TemporaryDirectory(prefix="edgekit-combine-") as work:
        trainer = adapter_trainer(
            model,
            mixed.encoder,
            (mixed.train, mixed.held_out),
            _settings(adapter, steps),
            Path(work),
            # a start again takes minutes, so that there are no checkpoints
            tracking_arguments(project, adapter, adapter.name) | {"save_strategy": "no", "eval_on_start": True},
        )
        tell_plan(trainer, adapter.name, len(mixed.train), len(mixed.held_out))
        progress = Progress.install(trainer, f"the weights of {adapter.name}")
        for callback in (best, TimeTold(adapter.name)):
            trainer.add_callback(callback)
        begun = time.monotonic()
        with progress:
            trainer.train()
    if best.weights is None:
        raise InputError(f"{adapter.name}: the loss of its parts is no number", "look at them: `edgekit evaluate`")
    log.info("%s: loss %.4f at step %d, %.4f at the start", adapter.name, best.loss, best.step, best.first)
    return Learned(
        weights=best.weights,
        steps=int(trainer.state.global_step),
        kept_step=best.step,
        loss=best.loss,
        loss_before=best.first,
        rows=len(mixed.train),
        held_out=len(mixed.held_out),
        data=data,
        losses=curve(trainer.state.log_history),
        seconds=round(time.monotonic() - begun, 3),
    )


def _settings(adapter: Adapter, steps: int) -> Adapter:
    """How the weights are trained, as adapters say it."""
    return Adapter(
        name=adapter.name,
        max_steps=steps,
        batch_size=BATCH_ROWS,
        learning_rate=RATE,
        optim="adamw_torch",
        eval_steps=max(1, steps // EVALUATIONS),
        keep="last",
        seed=adapter.seed,
    )


class _Best(transformers.TrainerCallback):
    """Takes down the weights of the lowest loss on the rows held out, and ends a training that finds no lower ones."""

    def __init__(self, weighing: Weighing) -> None:
        self.weights: dict[str, dict[str, float]] | None = None
        self.loss, self.first, self.step = math.inf, math.nan, 0
        self._weighing, self._idle = weighing, 0

    def on_evaluate(self, args: Any, state: Any, control: Any, **more: Any) -> Any:
        """Compare."""
        loss = float(more["metrics"][EVAL_LOSS])
        if math.isnan(self.first):
            self.first = loss
        if loss < self.loss:  # NaN is no lower one
            self.weights, self.loss, self.step = self._weighing.taken(), loss, int(state.global_step)
            self._idle = 0
            return control
        self._idle += 1
        if self._idle >= PATIENCE:
            control.should_training_stop = True
        return control
