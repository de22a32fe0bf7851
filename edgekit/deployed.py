"""The base as devices hold it: one answer for training, evaluation and export."""

from __future__ import annotations

from pathlib import Path

from edgekit.project import ONNX_PRECISIONS, Project
from edgekit_exporters.base import Base
from edgekit_exporters.gguf_base import Recipe, base_gguf
from edgekit_exporters.onnx_base import base_onnx
from edgekit_exporters.quantise import canonical_quantization
from edgekit_runtime.bundle import file_digest
from edgekit_runtime.onnx_base import DATA_FILE


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


def trained_blocks(project: Project, base: Base, precision: str, quantization: str | None) -> Path | None:
    """The blocks that a ``base_precision`` names: a GGUF file or the folder of an ONNX base; None for all others.

    Raises:
        UsageError: no such quantisation.
        InputError: the base can't be converted or quantised.
    """
    if precision in ONNX_PRECISIONS:
        return base_onnx(base, ONNX_PRECISIONS[precision])
    return deployed_base(project, base, quantization) if precision == "gguf" and quantization else None


def blocks_digest(blocks: Path) -> str:
    """sha256 of the file that holds them."""
    return file_digest(blocks / DATA_FILE if blocks.is_dir() else blocks)
