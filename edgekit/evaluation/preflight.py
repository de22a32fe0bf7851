"""What an evaluation was asked for, checked in a moment: before torch is imported, a base fetched or a model loaded."""

from __future__ import annotations

from pathlib import Path

from edgekit.bases.resolve import check_project_base
from edgekit.data import load_rows
from edgekit.project import Project
from edgekit.project.folders import trained_folder
from edgekit.training.kept import as_trained
from edgekit_runtime.errors import InputError
from edgekit_runtime.files.atomic import check_writable
from edgekit_runtime.formats.bundle import read_manifest


def check_evaluate(
    project: Project, name: str | None, *, artifact: Path | None = None, output: Path | None = None
) -> None:
    """Look at all that an evaluation needs.

    Raises:
        InputError: no such adapter, base or bundle, bad rows, or a file that can't be written.
    """
    project = as_trained(project)
    adapter = project.adapter(name)
    load_rows(project.data_for(adapter.name).eval)
    if output is not None:
        check_writable(output)
    check_project_base(project)
    if artifact is None or artifact.suffix == ".gguf":
        trained_folder(project, adapter)
    if artifact is None:
        return
    if not artifact.exists():
        raise InputError(f"there is no bundle at {artifact}", "give a bundle's folder or .tar, or a GGUF base")
    if artifact.is_dir():
        manifest = read_manifest(artifact)
        there = [*manifest.base.merged, *(entry.name for entry in manifest.adapters)]
        if adapter.name not in there:
            raise InputError(f"{artifact} has no adapter {adapter.name}", "export it with `edgekit export`")
