"""Ctrl-C and SIGTERM during training: finish the step, write a checkpoint, stop."""

from __future__ import annotations

import logging
import signal
from types import FrameType, TracebackType
from typing import Any

from transformers import TrainerCallback

log = logging.getLogger(__name__)


class StopOnInterrupt(TrainerCallback):
    """A Trainer callback and context manager; a second signal stops at once, without a checkpoint."""

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopOnInterrupt:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, self._request)
            except ValueError:  # not the main thread: whoever runs us handles signals
                return self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Ask the Trainer to save and stop once a signal has come."""
        if self.requested:
            control.should_save = True
            control.should_training_stop = True
        return control

    def _request(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True
        log.warning("stopping after this step; the checkpoint lets --resume go on (again to stop at once)")
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
