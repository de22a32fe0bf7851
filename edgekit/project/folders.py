"""Where the parts of a project lie, and what files that leave the workstation call them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from edgekit.project import PROJECT_FILE, Adapter, Project
from edgekit.project.combined import Combined, adapter_digest
from edgekit.project.run_record import read_record
from edgekit_exporters.hf.plain_files import ADAPTER_CONFIG
from edgekit_runtime.errors import InputError


def adapter_folder(project: Project, adapter: Adapter) -> Path:
    """Where the trained (or imported) adapter of a project lies, as a PEFT folder."""
    return adapter.path if adapter.path is not None else project.folder / "adapters" / adapter.name


def is_adapter_folder(folder: Path) -> bool:
    """Whether ``folder`` is an adapter that training may replace."""
    return (folder / ADAPTER_CONFIG).exists()


def trained_folder(project: Project, adapter: Adapter) -> Path:
    """Where the adapter is: its PEFT folder, or what an imported one's ``path`` names.

    Raises:
        InputError: it has not been trained yet, or there is nothing at the imported one's path.
    """
    folder = adapter_folder(project, adapter)
    if adapter.path is None and not is_adapter_folder(folder):
        how = "train" if adapter.combined is None else "combine"
        raise InputError(f"adapter {adapter.name} is not in {folder}", f"run `edgekit {how} {adapter.name}` first")
    if not (folder.exists() or folder.is_symlink()):
        raise InputError(f"adapter {adapter.name} is not in {folder}", "correct its path in edgekit.yaml")
    if adapter.combined is not None:
        _check_fresh(project, adapter, folder)
    return folder


def part_folder(project: Project, name: str) -> Path:
    """Where a part of a combination is: an adapter of the project, or what a path relative to it names."""
    known = project.adapters.get(name)
    return adapter_folder(project, known) if known is not None else (project.folder / Path(name).expanduser()).resolve()


def told_part(project: Project, name: str) -> str:
    """A part as files name it that leave this machine."""
    return name if name in project.adapters else told(project, Path(name).expanduser())


def told_settings(project: Project, combined: Combined) -> dict[str, Any]:
    """``combined:`` as such files have it."""
    return combined.as_dict() | {"parts": {told_part(project, name): each for name, each in combined.parts.items()}}


def _check_fresh(project: Project, adapter: Adapter, folder: Path) -> None:
    """A combination is of its parts as they are; parts that are gone can't have changed."""
    assert adapter.combined is not None
    again = f"run `edgekit combine {adapter.name}`"
    made = (read_record(folder) or {}).get("combined")
    if made is None:
        raise InputError(f"adapter {adapter.name} in {folder} was not made by `edgekit combine`", again)
    if made["settings"] != told_settings(project, adapter.combined) or made["seed"] != adapter.seed:
        raise InputError(f"adapter {adapter.name} was combined with other settings than {PROJECT_FILE} has now", again)
    digests = {part["name"]: part["digest"] for part in made["parts"]}
    for name in adapter.combined.parts:
        where = part_folder(project, name)
        if where.exists() and adapter_digest(where) != digests[told_part(project, name)]:
            raise InputError(f"adapter {adapter.name} is stale: {name} has changed since", again)


def bundle_folder(project: Project, output: Path | None = None) -> Path:
    """Where a bundle goes: ``output``, or ``dist/NAME`` of the project."""
    return output or project.folder / "dist" / (project.export.name or project.project)


def merged_folder(project: Project, adapters: list[Adapter], output: Path | None = None) -> Path:
    """Where a merged Hugging Face folder goes: ``output``, or ``dist/PROJECT-NAMES-merged``."""
    label = "-".join([project.project, *(adapter.name for adapter in adapters), "merged"])
    return output or project.folder / "dist" / label


def is_merged_folder(folder: Path) -> bool:
    """Whether ``folder`` is a Hugging Face folder that a merge may replace."""
    from edgekit_runtime.formats.bundle import is_bundle

    return (folder / "config.json").exists() and not is_bundle(folder)


def told(project: Project, path: str | Path) -> str:
    """A path as files name it that leave this machine: from the project's folder on, or without any folder.

    What stands behind the path, ``:3`` of a row say, stays.
    """
    path = Path(os.path.normpath(project.folder / path))
    return path.relative_to(project.folder).as_posix() if path.is_relative_to(project.folder) else path.name
