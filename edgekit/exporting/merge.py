"""Adapters merged into the float base, as a Hugging Face folder."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from edgekit.bases.resolve import project_base
from edgekit.exporting.preflight import check_merge
from edgekit.project import Project
from edgekit.project.folders import is_merged_folder, merged_folder, trained_folder
from edgekit.training.finished import folded_digest, run_record
from edgekit_exporters.peft.merge import merge_to_folder
from edgekit_exporters.progress import stage
from edgekit_runtime.files.atomic import publish

log = logging.getLogger(__name__)


def merge(project: Project, names: Sequence[str] | None = None, *, output: Path | None = None) -> Path:
    """Merge adapters into the float base and write a Hugging Face folder.

    Args:
        project: a loaded project file.
        names: adapters, merged in this order (the only one when None).
        output: the folder; ``dist/PROJECT-NAMES-merged`` when None.

    Raises:
        InputError: an adapter that isn't trained or doesn't fit; an output that can't be replaced.
    """
    check_merge(project, names, output=output)
    adapters = [project.adapter(name) for name in names] if names else [project.adapter()]
    output = merged_folder(project, adapters, output)
    trained = [trained_folder(project, adapter) for adapter in adapters]
    for adapter in adapters:
        if folded_digest(project, adapter) is not None:
            log.warning(
                "%s was trained merged into %s blocks; these floats are what they were made from, not what was trained",
                *(adapter.name, (run_record(project, adapter) or {})["quantization"]),
            )
    with publish(output, is_ours=is_merged_folder) as folder:
        base = project_base(project)
        with stage(f"merging {', '.join(adapter.name for adapter in adapters)} into the base"):
            merge_to_folder(base, trained, folder)
    return output
