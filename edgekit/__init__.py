"""edgekit: from data to a proven, swappable LoRA adapter on an edge device.

>>> from edgekit import load_project, train, export
>>> project = load_project("line-3")  # doctest: +SKIP
>>> train(project, "inspection")  # doctest: +SKIP
>>> bundle, manifest = export(project)  # doctest: +SKIP

Importing this package is cheap; torch loads with the first function that needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgekit.evaluation.evaluate import Evaluation, evaluate
    from edgekit.examples.init import init_project
    from edgekit.exporting.export import export
    from edgekit.exporting.merge import merge
    from edgekit.project import Project, load_project
    from edgekit.training.run import train

__all__ = ["Evaluation", "Project", "evaluate", "export", "init_project", "load_project", "merge", "train"]

_HOMES = {
    "Evaluation": "evaluation.evaluate",
    "Project": "project",
    "evaluate": "evaluation.evaluate",
    "export": "exporting.export",
    "init_project": "examples.init",
    "load_project": "project",
    "merge": "exporting.merge",
    "train": "training.run",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
