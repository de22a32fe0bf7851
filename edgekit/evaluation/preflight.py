"""What an evaluation was asked for, checked in a moment: before torch is imported, a base fetched or a model loaded."""

from __future__ import annotations

from pathlib import Path

from edgekit.bases.resolve import check_project_base
from edgekit.data import load_rows
from edgekit.project import Project
from edgekit.project.folders import trained_folder
from edgekit.training.kept import as_trained
from edgekit_runtime.errors import InputError, UsageError
from edgekit_runtime.files.atomic import check_writable
from edgekit_runtime.formats.bundle import read_manifest
from edgekit_runtime.formats.manifest import AUTO


def check_evaluate(
    project: Project, name: str | None, *, artifact: Path | None = None, output: Path | None = None
) -> None:
    """Look at all that an evaluation needs.

    Raises:
        InputError: no such adapter, stack, base or bundle, bad rows, or a file that can't be written.
    """
    project = as_trained(project)
    subject = project.subject(name)
    stack = project.stacks.get(subject.name)
    for file in project.eval_files(subject.name):
        load_rows(file)
    if output is not None:
        check_writable(output)
    check_project_base(project)
    if artifact is None or artifact.suffix == ".gguf":
        for adapter in [subject] if stack is None else project.named(list(stack.scales)):
            trained_folder(project, adapter)
    if artifact is None:
        return
    _check_there(artifact)
    if artifact.is_dir():
        manifest = read_manifest(artifact)
        there = [*manifest.base.merged, *(entry.name for entry in manifest.subjects)]
        if subject.name not in there:
            raise lacks(artifact, project, subject.name)


def check_through_auto(project: Project, *, artifact: Path | None, output: Path | None = None) -> None:
    """Look at what an evaluation through ``auto`` needs.

    Raises:
        UsageError: no bundle is given.
        InputError: no such bundle or base, bad rows, or a file that can't be written.
    """
    if artifact is None or artifact.suffix == ".gguf":
        raise UsageError(f"{AUTO} chooses on the device's engine, in a bundle", "give one: --artifact dist/NAME")
    for name in project.adapters:
        for file in project.eval_files(name):
            load_rows(file)
    if output is not None:
        check_writable(output)
    check_project_base(project)
    _check_there(artifact)


def _check_there(artifact: Path) -> None:
    if not artifact.exists():
        raise InputError(f"there is no bundle at {artifact}", "give a bundle's folder or .tar, or a GGUF base")


def lacks(bundle: Path, project: Project, name: str) -> InputError:
    """What is wrong with a bundle that has no such adapter or stack."""
    kind = "stack" if name in project.stacks else "adapter"
    how = "export it with all of its adapters" if kind == "stack" else "export it with `edgekit export`"
    return InputError(f"{bundle} has no {kind} {name}", how)
