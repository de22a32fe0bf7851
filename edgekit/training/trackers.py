"""Experiment trackers that follow a training, by transformers' callbacks; what they write stays on this machine."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgekit.project import Adapter, Project
from edgekit.training.history import runs_folder
from edgekit_runtime.errors import UsageError

WANDB = "wandb"


def check_trackers(adapter: Adapter) -> None:
    """Look whether the packages of ``report_to`` are installed.

    Raises:
        UsageError: one is not.
    """
    for name in adapter.report_to:
        if importlib.util.find_spec(name) is None:
            raise UsageError(
                f"report_to: {name} needs a package that is not installed",
                f"pip install 'edgekit[{name}]', or leave {name} out",
            )


def tracking_arguments(project: Project, adapter: Adapter, run: str) -> dict[str, Any]:
    """Arguments of transformers' TrainingArguments."""
    return {
        "report_to": list(adapter.report_to),
        "run_name": run,
        "project": project.project,
        "trackio_static_space_id": False,  # else transformers publishes a page of the run on the hub
    }


@contextlib.contextmanager
def tracking(project: Project, adapter: Adapter, run: str) -> Iterator[None]:
    """Where trackers write while the block runs: the project's ``runs``, and nothing over the network.

    Variables that the user has set go before: ``WANDB_MODE=online`` or ``MLFLOW_TRACKING_URI``, say.  What trackers
    print goes to stderr: stdout is for results.
    """
    if not adapter.report_to:
        yield
        return
    wanted = {key: value for key, value in _variables(project, run).items() if key not in os.environ}
    os.environ.update(wanted)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        if WANDB in sys.modules and WANDB in adapter.report_to:
            sys.modules[WANDB].finish()  # or the next adapter's training would go on in this run
        for key in wanted:
            os.environ.pop(key, None)


def _variables(project: Project, run: str) -> dict[str, str]:
    folder: Path = runs_folder(project).absolute()
    folder.mkdir(exist_ok=True)
    return {
        "TENSORBOARD_LOGGING_DIR": str(folder / "tensorboard" / run),
        "TRACKIO_DIR": str(folder / "trackio"),
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(folder),
        "WANDB_PROJECT": project.project,
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "MLFLOW_EXPERIMENT_NAME": project.project,
        # what they would send of their own use
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "WANDB_ERROR_REPORTING": "false",
        "GRADIO_ANALYTICS_ENABLED": "false",
    }
