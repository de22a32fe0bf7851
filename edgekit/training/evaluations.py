"""When a training is evaluated and saved, when it stops early, and which of its adapters is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import EarlyStoppingCallback, TrainerCallback

from edgekit.project import Adapter

OnEvaluation = Callable[[int, float], None]
EVAL_LOSS = "eval_loss"
MAX_CHECKPOINTS = 2
SAVES_PER_RUN = 10
EVALUATIONS_PER_RUN = 3
EVALUATIONS_WITH_PATIENCE = 10


def evaluations(adapter: Adapter, steps: int) -> dict[str, Any]:
    """Arguments of transformers' TrainingArguments, for a training of ``steps`` steps."""
    wanted = EVALUATIONS_PER_RUN if adapter.early_stopping is None else EVALUATIONS_WITH_PATIENCE
    each = adapter.eval_steps or max(1, -(-steps // wanted))
    options: dict[str, Any] = {
        "eval_strategy": "steps",
        "eval_steps": each,
        "save_strategy": "steps",
        "save_steps": each if adapter.keeps_best else max(1, -(-steps // SAVES_PER_RUN)),
        "save_total_limit": MAX_CHECKPOINTS,  # the best one stays besides
        "restore_callback_states_from_checkpoint": adapter.early_stopping is not None,  # patience goes on with --resume
        "load_best_model_at_end": adapter.keeps_best,
    }
    if adapter.keeps_best or adapter.early_stopping is not None:
        options |= {"metric_for_best_model": EVAL_LOSS, "greater_is_better": False}
    return options


def patience(adapter: Adapter) -> list[TrainerCallback]:
    """What ends a training whose evaluation loss no longer falls, where that is asked for."""
    return [] if adapter.early_stopping is None else [EarlyStoppingCallback(adapter.early_stopping)]


class Told(TrainerCallback):
    """Tells somebody each evaluation loss with its step; what they raise stops the training.

    Attributes:
        raised: whether they have.
    """

    def __init__(self, told: OnEvaluation | None) -> None:
        self.raised = False
        self._told = told

    def on_evaluate(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Tell it."""
        if self._told is None:
            return
        try:
            self._told(int(state.global_step), float(more["metrics"][EVAL_LOSS]))
        except BaseException:
            self.raised = True
            raise
