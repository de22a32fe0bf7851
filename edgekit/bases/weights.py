"""Which weights?  One answer for planning, training, proof and export: what devices run, and what is trained on."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from edgekit.project import AUTO, ONNX_PRECISIONS, Adapter, Export, Project
from edgekit_exporters.base import Base
from edgekit_exporters.gguf.base import Recipe, base_gguf, quantization_of
from edgekit_exporters.gguf.quantize import canonical_quantization
from edgekit_exporters.onnx.base import PRECISIONS as ONNX_TYPES
from edgekit_exporters.onnx.base import base_onnx, onnx_precision
from edgekit_exporters.requantized import requantized_from, requantized_note
from edgekit_runtime.errors import UsageError
from edgekit_runtime.formats.bundle import file_digest
from edgekit_runtime.formats.onnx_base import DATA_FILE

log = logging.getLogger(__name__)

GGUF, ONNX, TORCH = "gguf", "onnx", "torch"
DEFAULT_GGUF = "Q8_0"  # of a float base, when nobody said which: nearly lossless
DEFAULT_ONNX = "int4"
NO_BLOCKS = "nf4"  # what training takes where nobody said what devices run


@dataclass(frozen=True)
class Weights:
    """The weights of a base: on devices, or in training.

    Attributes:
        format: "gguf" or "onnx", whose blocks devices run, or "torch": floats and bitsandbytes types of a workstation.
        quantization: their type: Q4_0, int4, nf4, bf16 and so on; None while ``export.quantize: auto`` has to find it.
        is_default: whether neither the project nor the base's own file names the type.
        blocks: a GGUF file, or an ONNX base's folder; None in torch, and before :func:`with_blocks`.
    """

    format: str
    quantization: str | None
    is_default: bool = False
    blocks: Path | None = None

    @property
    def precision(self) -> str:
        """As ``base_precision`` names it."""
        if self.format == ONNX:
            return next(name for name, kind in ONNX_PRECISIONS.items() if kind == self.quantization)
        return GGUF if self.format == GGUF else str(self.quantization)

    @property
    def label(self) -> str:
        """For tables and logs: the type."""
        return self.quantization or AUTO

    @cached_property
    def digest(self) -> str | None:
        """sha256 of the file that holds the blocks; None in torch."""
        if self.blocks is None:
            return None
        return file_digest(self.blocks / DATA_FILE if self.blocks.is_dir() else self.blocks)


def deployed_weights(settings: Export, gguf: Path | None, wanted: str | None = None) -> Weights:
    """What devices run.

    Args:
        settings: of the project's export.
        gguf: the file that the user gave as the base, if it was one.
        wanted: a type that a command was asked for; else the project's counts, then the base file's own.

    Raises:
        UsageError: no such type.
    """
    if settings.format == ONNX:
        return Weights(ONNX, onnx_precision(wanted) if wanted else _onnx_type(settings.quantize))
    named = wanted or settings.quantize
    if named == AUTO:
        return Weights(GGUF, None)
    if named is not None:
        return Weights(GGUF, canonical_quantization(named))
    own = None if gguf is None else quantization_of(gguf)
    return Weights(GGUF, own or DEFAULT_GGUF, is_default=own is None)


def weights_named(kind: str | None, gguf: Path | None) -> Weights:
    """What devices run of a base without a project: the type tells the format.

    Raises:
        UsageError: no such type.
    """
    is_onnx = kind is not None and kind.lower() in ONNX_TYPES
    return deployed_weights(Export(format=ONNX if is_onnx else GGUF), gguf, kind)


def training_weights(adapter: Adapter, settings: Export, gguf: Path | None) -> Weights:
    """What an adapter is trained on: as it says, else what devices run, else (when nobody said what that is) NF4.

    Raises:
        UsageError: no such type, or the two don't go together.
    """
    wanted, deployed = adapter.base_precision, deployed_weights(settings, gguf)
    if wanted in ONNX_PRECISIONS:
        return Weights(ONNX, ONNX_PRECISIONS[wanted])
    if wanted == GGUF and deployed.format == ONNX:
        raise UsageError("base_precision gguf doesn't go with export.format onnx", "use onnx-int4, or leave it out")
    if wanted == GGUF and deployed.quantization is None:
        problem = "base_precision gguf needs to know what devices run, and export.quantize is auto"
        raise UsageError(problem, "set export.quantize to a type, Q4_0 say")
    if wanted not in (None, GGUF):
        return Weights(TORCH, wanted)
    if deployed.format == ONNX:
        return deployed if deployed.quantization in ONNX_PRECISIONS.values() else Weights(TORCH, "fp32")
    if wanted is None and (deployed.is_default or deployed.quantization is None):
        return Weights(TORCH, NO_BLOCKS)
    return deployed


def recorded_weights(precision: str, quantization: str | None) -> Weights:
    """What run.json says of a finished training."""
    if precision in ONNX_PRECISIONS:
        return Weights(ONNX, ONNX_PRECISIONS[precision])
    return Weights(GGUF, quantization) if precision == GGUF else Weights(TORCH, precision)


def with_blocks(project: Project, base: Base, weights: Weights) -> Weights:
    """The same with its files, made once and then taken from the cache; torch's have none.

    Raises:
        InputError: the base can't be converted or quantised.
    """
    if weights.format == TORCH:
        return weights
    assert weights.quantization is not None  # auto has been decided
    if weights.format == ONNX:
        return replace(weights, blocks=base_onnx(base, weights.quantization))
    return replace(weights, blocks=base_gguf(base, deployed_recipe(project, base, weights.quantization)))


def tell_requantized(gguf: Path | None, weights: Weights, *, merged: bool = False) -> None:
    """Warn where ``weights`` are made from blocks of another type, those of the file that the user gave as the base."""
    if weights.quantization is None:
        return
    source = requantized_from(gguf, weights.quantization, merged=merged)
    if source is not None:
        log.warning("%s; give a float checkpoint of the model as base:", requantized_note(weights.quantization, source))


def deployed_recipe(project: Project, base: Base, quantization: str) -> Recipe:
    """How the project quantises its base to GGUF.

    Raises:
        InputError: rows that an importance matrix can't be made from.
    """
    settings = project.export
    imatrix = None
    if settings.imatrix:
        from edgekit.bases.imatrix import project_imatrix

        imatrix = project_imatrix(project, base)
    return Recipe(quantization, imatrix, settings.tensor_types)


def _onnx_type(named: str | None) -> str:
    """What an ONNX base is exported at; a project's GGUF type, or auto, stands for the default."""
    if named is None or named == AUTO:
        return DEFAULT_ONNX
    if named.lower() in ONNX_TYPES:
        return named.lower()
    try:
        canonical_quantization(named)
    except UsageError:
        return onnx_precision(named)  # says what there is
    return DEFAULT_ONNX
