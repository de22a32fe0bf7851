"""The base as devices hold it: one answer for training, evaluation and export."""

from __future__ import annotations

from pathlib import Path

from edgekit.project import Project
from edgekit_exporters.base import Base
from edgekit_exporters.gguf_base import Recipe, base_gguf
from edgekit_exporters.quantise import canonical_quantization


def deployed_recipe(project: Project, base: Base, quantization: str) -> Recipe:
    """How the project quantises its base.

    Raises:
        UsageError: no such quantisation.
        InputError: rows that an importance matrix can't be made from.
    """
    settings = project.export
    imatrix = None
    if settings.imatrix:
        from edgekit.calibration import project_imatrix

        imatrix = project_imatrix(project, base)
    return Recipe(canonical_quantization(quantization), imatrix, settings.tensor_types)


def deployed_base(project: Project, base: Base, quantization: str) -> Path:
    """The GGUF file that devices run; see :func:`~edgekit_exporters.gguf_base.base_gguf`.

    Raises:
        UsageError: no such quantisation.
        InputError: the base can't be converted or quantised.
    """
    return base_gguf(base, deployed_recipe(project, base, quantization))
