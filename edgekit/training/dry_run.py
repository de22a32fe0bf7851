"""What a training would take: its steps, tokens, memory and time, from one step that nothing is kept of."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers

from edgekit.project import Project, with_settings
from edgekit.training.outlook import planned_evaluations, planned_steps
from edgekit.training.preflight import check_train
from edgekit.training.prepared import prepare
from edgekit.training.run import make_trainer, wrapped_model
from edgekit_exporters.progress import clock, stage
from edgekit_runtime.machine import peak_rss_mb

log = logging.getLogger(__name__)

DRY_RUN_SCHEMA = "edgekit.dry-run/1"
FORWARD = 1 / 3  # of a step's time: evaluations have no backward pass, which takes about twice as long


@dataclass(frozen=True)
class DryRun:
    """What a training would be.

    Attributes:
        adapter: its name.
        steps: of the optimizer.
        examples: to train on.
        evaluated: examples of each evaluation.
        evaluations: how many.
        tokens: of all training examples, once through.
        learnt_tokens: those of them that the loss is on.
        padding: share of what is computed that stands for no token; 0 where rows share what they begin with.
        longest: tokens of the longest example.
        memory_mb: most memory of the process, or of the GPU, in MiB, in a step on the longest rows.
        seconds_a_step: measured on the batch that is nearest to the mean size, after a first step.
        seconds: of all steps and evaluations, by that.
    """

    adapter: str
    steps: int
    examples: int
    evaluated: int
    evaluations: int
    tokens: int
    learnt_tokens: int
    padding: float
    longest: int
    memory_mb: float
    seconds_a_step: float
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """The JSON document."""
        return {"schema": DRY_RUN_SCHEMA, **asdict(self)}

    def text(self) -> str:
        """A few lines for people."""
        return "\n".join(
            [
                f"{self.adapter}: {self.steps} steps, {self.evaluations} evaluations; nothing was written",
                f"  data     {self.examples} examples of {self.tokens} tokens ({self.learnt_tokens} learnt),"
                f" the longest has {self.longest}; {100 * self.padding:.0f} % padding",
                f"  memory   {self.memory_mb:.0f} MiB at most, in a step on the longest examples",
                f"  time     about {clock(self.seconds)}: one step was measured and took {self.seconds_a_step:.2g} s",
            ]
        )


def dry_run(project: Project, name: str | None = None, *, settings: Mapping[str, Any] | None = None) -> DryRun:
    """Do all that training does until its first step, make two steps, and keep nothing in the project.

    What bases are made of (downloads, quantised blocks) goes into the cache, as with a training.

    Args:
        project: a loaded project file.
        name: adapter (the only one when None).
        settings: see :func:`~edgekit.training.run.train`.

    Raises:
        InputError: bad data or base.
        UsageError: settings that don't fit together.
    """
    name = project.adapter(name).name
    project = with_settings(project, [name], settings or {})
    check_train(project, [name])
    prepared = prepare(project, project.adapter(name), settings or {})
    prepared = replace(prepared, adapter=replace(prepared.adapter, report_to=()))
    with tempfile.TemporaryDirectory(prefix="edgekit-dry-run-") as scratch:
        model = wrapped_model(prepared)
        trainer = make_trainer(prepared, model, Path(scratch), name)
        batches = list(trainer.get_train_dataloader())
        sizes = [_size(batch) for batch in batches]
        mean = sum(sizes) / len(sizes)
        trainer.create_optimizer_and_scheduler(planned_steps(trainer))
        with stage(f"measuring a step of {name}"):
            _step(trainer, model, batches[sizes.index(max(sizes))])
            measured = min(range(len(sizes)), key=lambda at: abs(sizes[at] - mean))
            seconds = _step(trainer, model, batches[measured])
        memory = _gpu_memory_mb() or peak_rss_mb()
    train_set, eval_set = prepared.datasets
    tokens = sum(len(each["input_ids"]) for each in train_set)
    a_step = seconds / sizes[measured] * mean * trainer.args.gradient_accumulation_steps
    steps, evaluations = planned_steps(trainer), planned_evaluations(trainer)
    evaluated = sum(len(each["input_ids"]) for each in eval_set)
    return DryRun(
        adapter=name,
        steps=steps,
        examples=len(train_set),
        evaluated=len(eval_set),
        evaluations=evaluations,
        tokens=tokens,
        learnt_tokens=sum(sum(label >= 0 for label in each["labels"]) for each in train_set),
        padding=round(max(0.0, 1 - tokens / sum(sizes)), 4),
        longest=max(len(each["input_ids"]) for each in train_set),
        memory_mb=round(memory, 1),
        seconds_a_step=round(a_step, 4),
        seconds=round(steps * a_step + evaluations * evaluated * FORWARD * seconds / sizes[measured], 1),
    )


def _size(batch: Mapping[str, Any]) -> int:
    """Tokens that are computed, padding included."""
    return int(batch["input_ids"].numel())


def _step(trainer: transformers.Trainer, model: Any, batch: Mapping[str, Any]) -> float:
    """Seconds of one step of the optimizer on one batch."""
    begun = time.monotonic()
    trainer.current_gradient_accumulation_steps = 1
    trainer.training_step(model, dict(batch))
    assert trainer.optimizer is not None  # just made
    trainer.optimizer.step()
    trainer.optimizer.zero_grad()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.monotonic() - begun


def _gpu_memory_mb() -> float:
    return torch.cuda.max_memory_allocated() / 1024**2 if torch.cuda.is_available() else 0.0
