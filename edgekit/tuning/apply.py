"""What a search has found becomes the project's: settings in edgekit.yaml, the trained adapter in its place."""

from __future__ import annotations

import datetime
import re
import shutil
from collections.abc import Mapping
from typing import Any

from edgekit.project import Project, load_project, with_settings
from edgekit.project.edit import edit_adapter
from edgekit.project.folders import adapter_folder, is_adapter_folder
from edgekit.tuning.search import Finalist, Found
from edgekit.tuning.space import SEARCHABLE
from edgekit_runtime.files.atomic import publish

WRITTEN = (*SEARCHABLE, "max_steps")  # keys of an adapter that a search may change
OWN_LINE = re.compile(r"^[ \t]*# edgekit tune, .*\n", re.MULTILINE)


def apply(project: Project, name: str, found: Found) -> bool:
    """Take the best finalist over: its settings go to edgekit.yaml, its adapter to ``adapters/NAME``.

    Returns:
        Whether the settings have changed.

    Raises:
        InputError: one of them can't be written; edgekit.yaml stays as it was then.
    """
    best = found.best
    with publish(adapter_folder(project, project.adapter(name)), is_ours=is_adapter_folder) as temporary:
        shutil.copytree(best.folder, temporary, dirs_exist_ok=True)
        if best.settings:
            write_settings(project, name, best.settings, _comment(best, found))
    return bool(best.settings)


def write_settings(project: Project, name: str, settings: Mapping[str, Any], comment: str) -> None:
    """Change keys of an adapter in edgekit.yaml, whose comments and order stay, with a comment before the first one.

    What else a search changes is as in ``project``: another process of the search may have written its own best.

    Raises:
        InputError: the file can't be written, or would not say what it has to.
    """
    ours = project.adapter(name)

    def change(entry: Any, indent: int) -> None:
        found = load_project(project.folder).adapter(name)
        others = {key: getattr(ours, key) for key in WRITTEN if getattr(found, key) != getattr(ours, key)}
        for key, value in (others | dict(settings)).items():
            if value is None:
                entry.pop(key, None)
            else:
                entry[key] = list(value) if isinstance(value, tuple) else value
        first = next(key for key in entry if key in settings)
        entry.yaml_set_comment_before_after_key(first, before=comment, indent=2 * indent)

    wanted = with_settings(project, [name], settings).adapter(name)
    edit_adapter(
        project.folder,
        name,
        change,
        lambda written: written.adapter(name) == wanted,
        without=lambda text: OWN_LINE.sub("", text),
    )


def _comment(best: Finalist, found: Found) -> str:
    before = next((each for each in found.finalists if each.number == 0), None)
    said = f"score {100 * best.score.value:.1f}, evaluation loss {best.loss:.3f}"
    was = "" if before is None else f" (before: {100 * before.score.value:.1f}, {before.loss:.3f})"
    return f"edgekit tune, {datetime.date.today():%Y-%m-%d}: {said}{was}"
