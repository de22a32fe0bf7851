"""A base model as a GGUF file at a chosen quantisation, kept in the cache."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgekit_exporters.base import Base
from edgekit_exporters.cache import cache_folder, cached
from edgekit_exporters.conversion.converters import CONVERSION, convert, engine_version
from edgekit_exporters.gguf.imatrix import read_imatrix
from edgekit_exporters.gguf.metadata import rewrite_metadata
from edgekit_exporters.gguf.quantize import QUANTIZATIONS, canonical_quantization, quantize
from edgekit_exporters.progress import stage
from edgekit_runtime.formats.adapter import KEY_FAMILY
from edgekit_runtime.formats.gguf import read_gguf

log = logging.getLogger(__name__)

# llama.cpp's numbers for general.file_type are those of its quantiser.
FILE_TYPE = "general.file_type"
TOKENIZER_PREFIX = "tokenizer."


@dataclass(frozen=True)
class Recipe:
    """How a base is quantised.

    Attributes:
        quantization: ``Q4_0``, ``Q4_K_M``, …
        imatrix: file of an importance matrix that the quantiser weighs columns by.
        tensor_types: regular expression over tensor names -> type, for those that shall differ.
    """

    quantization: str
    imatrix: Path | None = None
    tensor_types: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_plain(self) -> bool:
        """Whether the quantisation's name says it all."""
        return self.imatrix is None and not self.tensor_types

    @property
    def label(self) -> str:
        """For file names: the quantisation, and a digest of what else matters."""
        if self.is_plain:
            return self.quantization
        digest = hashlib.sha256(json.dumps(list(self.tensor_types.items())).encode())
        digest.update(self.imatrix.read_bytes() if self.imatrix else b"")
        return f"{self.quantization}-{digest.hexdigest()[:12]}"

    def quantize(self, source: Path, destination: Path) -> None:
        """Write ``source`` quantised to ``destination``; see :func:`~edgekit_exporters.gguf.quantize.quantise`."""
        values = read_imatrix(self.imatrix) if self.imatrix else None
        with stage(f"quantizing the base to {self.label}"):
            quantize(source, destination, self.quantization, imatrix=values, tensor_types=self.tensor_types)


def base_gguf(base: Base, recipe: Recipe | str) -> Path:
    """Return ``base`` as GGUF; made once, then taken from the cache.

    A base that is already a GGUF of that quantisation keeps its blocks bit for bit; its metadata gains the family.

    Raises:
        UsageError: no such quantisation.
        InputError: the base can't be converted or quantised.
    """
    recipe = Recipe(canonical_quantization(recipe)) if isinstance(recipe, str) else recipe
    base = base.stock or base  # a bundle gets its template when it is written; blocks don't depend on it
    folder = cache_folder("bases", base.key)
    made_by = CONVERSION if base.gguf is None else f"llama-cpp-python-{engine_version()}"
    target = folder / f"{recipe.label}-{made_by}.gguf"
    return cached(target, lambda temporary: _make(base, recipe, temporary))


def gguf_from_folder(folder: Path, destination: Path, recipe: Recipe | str, *, like: Path | None = None) -> None:
    """Convert a Hugging Face folder to GGUF.

    ``like`` names the GGUF that the folder was unpacked from: its tokenizer metadata is carried over, so that the
    round trip through the folder can't change how text is split.
    """
    recipe = Recipe(canonical_quantization(recipe)) if isinstance(recipe, str) else recipe
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".convert-") as scratch:
        full = Path(scratch, "full.gguf")
        is_float = recipe.is_plain and recipe.quantization in ("F16", "F32", "BF16")
        # F32 loses nothing before the quantiser sees it.
        kind = recipe.quantization.lower() if is_float else "f32"
        with stage("converting the base to GGUF"):
            convert(folder, full, "--outtype", kind)
        if not is_float:
            quantized = Path(scratch, "quantised.gguf")
            recipe.quantize(full, quantized)
            full = quantized
        rewrite_metadata(full, destination, {}, copy=like, prefix=TOKENIZER_PREFIX)


def quantization_of(path: Path) -> str | None:
    """The quantisation that a GGUF file says it has, ``Q4_K_M`` say, or None when it doesn't tell."""
    number = read_gguf(path).metadata.get(FILE_TYPE)
    return next((name for name, value in QUANTIZATIONS.items() if value == number), None)


def _make(base: Base, recipe: Recipe, destination: Path) -> None:
    log.info("making the base %s at %s (once)", base.name, recipe.label)
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".base-") as scratch:
        if base.gguf is None:
            made = Path(scratch, "converted.gguf")
            gguf_from_folder(base.folder, made, recipe)
        elif recipe.is_plain and quantization_of(base.gguf) == recipe.quantization:
            made = base.gguf
        else:
            made = Path(scratch, "quantised.gguf")
            recipe.quantize(base.gguf, made)
        rewrite_metadata(made, destination, {KEY_FAMILY: base.family})
