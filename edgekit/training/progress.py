"""One progress line on stderr: steps, time left, and the last losses."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback


class Progress(TrainerCallback):
    """Takes the place of transformers' own display, which writes logs to stdout."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._bar: Any = None
        self._shown: dict[str, str] = {}

    @classmethod
    def install(cls, trainer: Trainer, label: str) -> None:
        """Replace the display of ``trainer``."""
        for other in (ProgressCallback, PrinterCallback):
            trainer.remove_callback(other)
        trainer.add_callback(cls(label))

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Open the bar, where an interrupted run stopped."""
        self._bar = tqdm(
            total=state.max_steps, initial=state.global_step, desc=self._label, unit="step", file=sys.stderr
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Move on."""
        self._bar.update(state.global_step - self._bar.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Show the last losses."""
        for key, name in (("loss", "loss"), ("eval_loss", "evaluation")):
            if logs and key in logs:
                self._shown[name] = f"{float(logs[key]):.3f}"
        self._bar.set_postfix(self._shown)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Close the bar."""
        self._bar.close()
