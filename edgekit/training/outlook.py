"""What a training is going to do and how long that will take, told when it begins."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

from transformers import Trainer, TrainerCallback

from edgekit_exporters.progress import clock

log = logging.getLogger(__name__)

WARM_UP = 1  # steps that are not measured: the first one is slower, and has the longest rows
MEASURED = 3


def planned_steps(trainer: Trainer) -> int:
    """Optimizer steps that ``trainer`` will make unless it stops early."""
    arguments = trainer.args
    if arguments.max_steps > 0:
        return int(arguments.max_steps)
    a_pass = max(1, math.ceil(len(trainer.get_train_dataloader()) / arguments.gradient_accumulation_steps))
    return math.ceil(arguments.num_train_epochs * a_pass)


def planned_evaluations(trainer: Trainer) -> int:
    """Evaluations among these steps; the last step has one in any case."""
    return math.ceil(planned_steps(trainer) / int(trainer.args.eval_steps))


def tell_plan(trainer: Trainer, name: str) -> None:
    """Steps, rows and evaluations."""
    rows, evaluated = (len(each) for each in (trainer.train_dataset, trainer.eval_dataset))
    arguments = trainer.args
    batch = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
    steps = planned_steps(trainer)
    log.info(
        "%s: %d steps of %d examples, %.3g passes over %d; %d evaluations on %d",
        *(name, steps, batch, steps * batch / rows, rows, planned_evaluations(trainer), evaluated),
    )


class TimeTold(TrainerCallback):
    """Tells how long the whole training will take, once a few steps have been measured; evaluations not counted."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._first: int | None = None
        self._begun = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock after the steps that don't count."""
        if self._first is None:
            self._first = state.global_step + WARM_UP
        if state.global_step == self._first:
            self._begun = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Tell it once."""
        if self._first is not None and state.global_step == self._first + MEASURED and state.max_steps > MEASURED * 2:
            a_step = (time.monotonic() - self._begun) / MEASURED
            left = a_step * (state.max_steps - state.global_step)
            log.info("%s: about %s left, at %.2g s a step", self._name, clock(left), a_step)
