"""What `auto` needs of a project: rows of each adapter.  Looked at before anything is loaded."""

from __future__ import annotations

import random
from collections.abc import Sequence

from edgekit.data import load_rows
from edgekit.data.source import DataSource
from edgekit.project import Adapter, Project
from edgekit_runtime.errors import InputError, UsageError
from edgekit_runtime.formats.manifest import AUTO
from edgekit_runtime.formats.route import user_text

LEAST_ROWS = 3  # different ones, of an adapter
MOST_ASKED = 500  # evaluation rows of an adapter that the proof asks


def check_auto(project: Project, adapters: Sequence[Adapter]) -> None:
    """Look at what a router needs.

    Raises:
        UsageError: a merged bundle, or a fallback that isn't exported.
        InputError: an adapter without enough training rows.
    """
    auto = project.auto
    if auto is None:
        return
    if project.export.mode == "merged":
        raise UsageError("auto chooses among adapters, and a merged bundle has none", "leave out --mode merged or auto")
    names = [adapter.name for adapter in adapters]
    if auto.fallback in project.adapters and auto.fallback not in names:
        raise UsageError(f"auto.fallback {auto.fallback} is not among the exported adapters", "export it too")
    for name in names:
        training_texts(project, name)


def training_texts(project: Project, name: str) -> list[str]:
    """What users say in an adapter's training rows.

    Raises:
        InputError: there are too few, or none.
    """
    mend = f"add data: {{train: …, eval: …}} to adapters.{name}, or leave out {AUTO}"
    source = project.data_for(name).train
    if source.path is None and source.hub is None:
        raise InputError(f"auto learns from training rows, and {name} names none", mend)
    texts = _texts([source])
    if len(set(texts)) < LEAST_ROWS:
        raise InputError(
            f"auto needs {LEAST_ROWS} different questions of {name}, and there are {len(set(texts))}", mend
        )
    return texts


def evaluation_texts(project: Project, name: str) -> list[str]:
    """What users say in an adapter's evaluation rows; a fixed sample of many."""
    texts = list(dict.fromkeys(_texts(project.eval_files(name))))
    return texts if len(texts) <= MOST_ASKED else random.Random(0).sample(texts, MOST_ASKED)


def _texts(sources: Sequence[DataSource]) -> list[str]:
    return [text for source in sources for row in load_rows(source) if (text := user_text(row.messages))]
