"""Settings that one training was given beside the project file: what was made so is evaluated and shipped so."""

from __future__ import annotations

import logging

from edgekit.project import Project, with_settings
from edgekit.project.folders import adapter_folder
from edgekit.project.run_record import read_record
from edgekit_runtime.errors import InputError, UsageError

log = logging.getLogger(__name__)

TRAVELS = ("data", "system", "schema", "generation", "version")  # keys of an adapter that matter after training too


def as_trained(project: Project, *, tell: bool = False) -> Project:
    """The project with those settings of its adapters that their trainings were given beside the project file.

    Args:
        project: a loaded project file.
        tell: log which ones these are.

    Raises:
        InputError: such a setting can't be right any longer: a file that it names is gone, say.
    """
    for adapter in project.adapters.values():
        record = None if adapter.path is not None else read_record(adapter_folder(project, adapter))
        settings = (record or {}).get("settings") or {}
        try:
            changed = with_settings(project, [adapter.name], settings)
        except UsageError as error:
            problem = f"adapter {adapter.name} was trained with {error.problem}"
            raise InputError(problem, "put back what that needs, or train it again") from None
        kept = [key for key in TRAVELS if getattr(changed.adapters[adapter.name], key) != getattr(adapter, key)]
        if kept and tell:
            log.info("%s: %s as in its training (--set)", adapter.name, ", ".join(kept))
        project = changed
    return project
