"""A base model as a GGUF file at a chosen quantisation, kept in the cache."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from edgekit_exporters.base import Base
from edgekit_exporters.cache import cache_folder, cached
from edgekit_exporters.gguf_metadata import rewrite_metadata
from edgekit_exporters.llama_tools import engine_version, run_converter
from edgekit_exporters.quantise import canonical_quantization, quantise
from edgekit_runtime.adapter import KEY_FAMILY
from edgekit_runtime.gguf import read_gguf

log = logging.getLogger(__name__)

# llama.cpp's numbers for general.file_type are those of its quantiser.
FILE_TYPE = "general.file_type"
TOKENIZER_PREFIX = "tokenizer."


def base_gguf(base: Base, quantization: str) -> Path:
    """Return ``base`` as GGUF at ``quantization``; made once, then taken from the cache.

    A base that is already a GGUF of that quantisation keeps its blocks bit for bit; its metadata gains the family.

    Raises:
        InputError: the base can't be converted or quantised.
    """
    quantization = canonical_quantization(quantization)
    folder = cache_folder("bases", base.family)
    target = folder / f"{quantization}-llama-cpp-python-{engine_version()}.gguf"
    return cached(target, lambda temporary: _make(base, quantization, temporary))


def gguf_from_folder(folder: Path, destination: Path, quantization: str, *, like: Path | None = None) -> None:
    """Convert a Hugging Face folder to GGUF at ``quantization``.

    ``like`` names the GGUF that the folder was unpacked from: its tokenizer metadata is carried over, so that the
    round trip through the folder can't change how text is split.
    """
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".convert-") as scratch:
        full = Path(scratch, "full.gguf")
        run_converter("convert_hf_to_gguf.py", [folder, "--outfile", full, "--outtype", _float_type(quantization)])
        if quantization not in ("F16", "F32", "BF16"):
            quantised = Path(scratch, "quantised.gguf")
            quantise(full, quantised, quantization)
            full = quantised
        rewrite_metadata(full, destination, {}, copy=like, prefix=TOKENIZER_PREFIX)


def quantization_of(path: Path) -> str | None:
    """The quantisation that a GGUF file says it has, ``Q4_K_M`` say, or None when it doesn't tell."""
    from edgekit_exporters.quantise import quantizations

    number = read_gguf(path).metadata.get(FILE_TYPE)
    return next((name for name, value in quantizations().items() if value == number), None)


def _make(base: Base, quantization: str, destination: Path) -> None:
    log.info("making the base %s at %s (once)", base.name, quantization)
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".base-") as scratch:
        if base.gguf is None:
            made = Path(scratch, "converted.gguf")
            gguf_from_folder(base.folder, made, quantization)
        elif quantization_of(base.gguf) == quantization:
            made = base.gguf
        else:
            made = Path(scratch, "quantised.gguf")
            quantise(base.gguf, made, quantization)
        rewrite_metadata(made, destination, {KEY_FAMILY: base.family})


def _float_type(quantization: str) -> str:
    """What to convert to first: F32 loses nothing before the quantiser sees it."""
    return quantization.lower() if quantization in ("F16", "BF16") else "f32"
