"""What is shown of a training run."""

from __future__ import annotations

import logging

import pytest
from transformers import TrainerState

from edgekit.training.progress import Progress

SHOWN_BY = "edgekit_exporters.progress"


def test_steps_and_the_last_losses_from_where_a_run_was_stopped(caplog: pytest.LogCaptureFixture) -> None:
    progress, state = Progress("small"), TrainerState(max_steps=4, global_step=2)
    with caplog.at_level(logging.INFO, SHOWN_BY):
        progress.on_train_begin(None, state, None)
        state.global_step = 4
        progress.on_log(None, state, None, {"loss": 0.51234, "epoch": 1.0})
        progress.on_log(None, state, None, {"eval_loss": 0.75})
        progress.on_step_end(None, state, None)
        progress.on_train_end(None, state, None)
    assert caplog.messages == ["training small", "training small: 4 of 4 steps, loss 0.512, evaluation 0.750"]


def test_training_that_breaks_off_ends_its_line(caplog: pytest.LogCaptureFixture) -> None:
    def break_off() -> None:
        with Progress("small") as progress:
            progress.on_train_begin(None, TrainerState(max_steps=4), None)
            progress.on_log(None, TrainerState(), None, {"loss": 2})
            raise RuntimeError("broken off")

    with caplog.at_level(logging.INFO, SHOWN_BY), pytest.raises(RuntimeError, match="broken off"):
        break_off()
    assert caplog.messages == ["training small", "training small: 0 of 4 steps, loss 2.000"]
