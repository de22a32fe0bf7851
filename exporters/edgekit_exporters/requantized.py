"""Quantizing what was quantized before: named for what it is, as no type gives back what another has rounded away."""

from __future__ import annotations

from pathlib import Path

from edgekit_exporters.gguf.base import quantization_of
from edgekit_exporters.gguf.quantize import QUANTIZATIONS

FLOATS = ("F32", "F16", "BF16")
WIDE_ONNX = ("fp32", "fp16", "int8")


def requantized_from(gguf: Path | None, quantization: str, *, merged: bool = False) -> str | None:
    """The type of the blocks that a base's weights are made from, where these are other blocks; else None.

    Args:
        gguf: the file that the user gave as the base; None for float weights.
        quantization: the type that is made.
        merged: an adapter is merged into the weights, so that all are quantized again.
    """
    own = None if gguf is None else quantization_of(gguf)
    kept = own == quantization and not merged
    return None if own is None or own in FLOATS or kept else own


def requantized_note(quantization: str, source: str) -> str:
    """What that means, in one line."""
    wider = quantization in WIDE_ONNX
    if quantization in QUANTIZATIONS and source in QUANTIZATIONS:
        order = list(QUANTIZATIONS)  # from wide to narrow
        wider = order.index(quantization) < order.index(source)
    if wider:
        return f"{quantization} made from {source}: no better than {source}"
    return f"{quantization} made from {source}, not from float weights: what both types lose adds up"
