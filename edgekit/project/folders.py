"""Where the parts of a project lie, and what files that leave the workstation call them."""

from __future__ import annotations

import os
from pathlib import Path

from edgekit.project import Adapter, Project
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
        raise InputError(f"adapter {adapter.name} is not in {folder}", f"run `edgekit train {adapter.name}` first")
    if not (folder.exists() or folder.is_symlink()):
        raise InputError(f"adapter {adapter.name} is not in {folder}", "correct its path in edgekit.yaml")
    return folder


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
