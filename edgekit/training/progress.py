"""The progress of a training run: steps, time left, and the last losses."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback

from edgekit_exporters.progress import Stage


class Progress(TrainerCallback):
    """Takes the place of transformers' own display, which writes logs to stdout.

    A context manager too: training that breaks off leaves a terminal as it was.
    """

    def __init__(self, label: str) -> None:
        self._label = label
        self._stage: Stage | None = None

    @classmethod
    def install(cls, trainer: Trainer, label: str) -> Progress:
        """Replace the display of ``trainer``."""
        for other in (ProgressCallback, PrinterCallback):
            trainer.remove_callback(other)
        shown = cls(label)
        trainer.add_callback(shown)
        return shown

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Open the stage, where an interrupted run stopped."""
        self._stage = Stage(f"training {self._label}", state.max_steps, "step", state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Move on."""
        if self._stage is not None:
            self._stage.reach(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Show the last losses."""
        for key, name in (("loss", "loss"), ("eval_loss", "evaluation")):
            if self._stage is not None and logs and key in logs:
                self._stage.show(**{name: f"{float(logs[key]):.3f}"})

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Close the stage."""
        self._close()

    def _close(self) -> None:
        if self._stage is not None:
            self._stage.close()
