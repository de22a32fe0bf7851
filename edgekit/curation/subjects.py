"""What `edgekit data` is asked about: the rows of a project's adapters, or files."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgekit.curation.check import Subject
from edgekit.curation.lengths import TOKENS, token_measure
from edgekit.project import PROJECT_FILE, Adapter, Project, load_project
from edgekit.project.data_files import NO_ROWS
from edgekit_runtime.errors import InputError, UsageError

log = logging.getLogger(__name__)


def project_in(words: Sequence[Path]) -> Project | None:
    """The project that the words of a command line name: none at all, a folder with one, or its file.

    Raises:
        InputError: there is no project, or its file is wrong.
    """
    if not words:
        return load_project(".")
    (first, *rest) = words
    if first.name == PROJECT_FILE:
        first = first.parent
    if rest or not (first / PROJECT_FILE).exists():
        return None
    return load_project(str(first))


def project_subjects(project: Project, name: str | None = None) -> list[Subject]:
    """The rows of an adapter, or of all that are trained here; the same rows once.

    Raises:
        InputError: no such adapter, or one without rows.
    """
    adapters = [project.adapter(name)] if name is not None else list(project.adapters.values())
    found: dict[Any, Subject] = {}
    for adapter in adapters:
        without = adapter.data is None and project.data is None
        if adapter.combined is not None or (adapter.path is not None and without):
            continue  # nothing is trained on rows of it, or there are none
        files = project.data_for(adapter.name)
        if files.train == NO_ROWS:
            continue
        lengths = _lengths(project, adapter)
        known = (str(files), json.dumps(adapter.schema, sort_keys=True), adapter.system, adapter.max_length)
        found.setdefault(
            known,
            Subject(name=adapter.name, train=[files.train], eval=[files.eval], schema=adapter.schema, **lengths),
        )
    if not found:
        raise InputError("the project names no rows", f"add data: {{train: …, eval: …}} to {PROJECT_FILE}")
    return list(found.values())


def file_subject(train: Sequence[Path], evaluation: Sequence[Path], schema: Path | None) -> Subject:
    """Rows of files, without a project.

    Raises:
        InputError: the schema can't be read.
    """
    name = train[0].name if len(train) == 1 else f"{train[0].name} and {len(train) - 1} more"
    return Subject(name, list(train), list(evaluation), None if schema is None else read_schema(schema))


def read_schema(path: Path) -> dict[str, Any]:
    """A JSON schema in a file.

    Raises:
        InputError: it can't be read, or is no object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror})", "check its name and permissions") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no readable JSON ({error})", "correct the file") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} is no JSON schema", "write an object")
    return value


def read_about(text: str | None) -> str | None:
    """What a teacher is told of the task: the text, or with ``@FILE`` what stands in a file.

    Raises:
        UsageError: the file can't be read.
    """
    if text is None or not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{text[1:]} can't be read ({error})", "name a text file behind @, or write the text"
        ) from None


def _lengths(project: Project, adapter: Adapter) -> dict[str, Any]:
    """How to measure rows in tokens of the base; nothing where it can't be had, which is said."""
    from edgekit.bases.float_folder import read_config
    from edgekit.bases.resolve import project_base

    try:
        folder = project_base(project).folder
        measure = token_measure(folder, adapter.system, adapter.reasoning)
        context = adapter.max_length or read_config(folder).get("max_position_embeddings")
    except InputError as error:
        log.warning("lengths are in characters, as the base can't be had: %s", error)
        return {}
    return {"measure": measure, "unit": TOKENS, "longest": context if isinstance(context, int) else None}
