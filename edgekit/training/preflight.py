"""What a training was asked for, checked in a moment: before torch is imported, a base fetched or a model loaded."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from edgekit.bases.resolve import check_project_base
from edgekit.data import load_rows
from edgekit.project import PREFERENCE, Adapter, Project
from edgekit.project.folders import adapter_folder, is_adapter_folder
from edgekit.training.trackers import check_trackers
from edgekit_runtime.errors import UsageError
from edgekit_runtime.files.atomic import check_replaceable


def check_train(project: Project, names: Sequence[str]) -> None:
    """Look at all that training ``names`` needs.

    Raises:
        UsageError: an adapter that was trained elsewhere, or a tracker that is not installed.
        InputError: no such adapter or base, bad rows, or an adapter folder that can't be replaced.
    """
    for name in names:
        adapter = project.adapter(name)
        if adapter.path is not None:
            raise UsageError(
                f"adapter {adapter.name} was trained elsewhere ({adapter.path})", "it is exported as it is"
            )
        check_trackers(adapter)
        _check_preferences(project, adapter)
        files = project.data_for(name)
        load_rows(files.train)
        load_rows(files.eval)
        check_replaceable(adapter_folder(project, adapter), is_adapter_folder)
    check_project_base(project)


def _check_preferences(project: Project, adapter: Adapter) -> None:
    if adapter.method != PREFERENCE:
        return
    if project.task != "text":
        raise UsageError(f"method: {PREFERENCE} is for task: text", "train captions with another method")
    if importlib.util.find_spec("trl") is None:
        hint = "pip install 'edgekit[preference]'"
        raise UsageError(f"method: {PREFERENCE} needs the package trl, which is not installed", hint)
