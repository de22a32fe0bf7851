"""An adapter as one ``.onnx_adapter`` file, from the same canonical LoRA as a GGUF adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from edgekit_exporters.base import Base
from edgekit_exporters.gguf.adapter import AdapterSource, adapter_facts, canonical_adapter
from edgekit_exporters.onnx.base import layers_of
from edgekit_exporters.onnx.builder import require_onnx
from edgekit_exporters.onnx.graph_map import OTHER_FORMAT, GraphMap, Piece
from edgekit_exporters.peft.canonical import CanonicalAdapter, LowRank
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.onnx_adapter import model_version, trailer
from edgekit_runtime.formats.onnx_base import LORA_A, LORA_B

ADAPTER_VERSION = 1


def write_adapter_onnx(source: AdapterSource, base: Base, destination: Path, folder: Path) -> CanonicalAdapter:
    """Write ``destination``, which ONNX Runtime GenAI loads too.

    Args:
        source: the adapter.
        base: that it was trained on.
        destination: the file.
        folder: the base's graph, as :func:`~edgekit_exporters.onnx.base.base_onnx` writes it.

    Returns:
        The canonical adapter whose pairs are in the file.

    Raises:
        InputError: the adapter isn't low-rank additive, is damaged, of another base, or changes what the graph can't.
    """
    require_onnx()
    import onnxruntime

    canonical = canonical_adapter(source, base, onnx=True)
    matrices = graph_matrices(canonical.layers, layers_of(folder), GraphMap.read(folder))
    file = onnxruntime.AdapterFormat()
    file.set_adapter_version(ADAPTER_VERSION)
    file.set_model_version(model_version(base.family))
    values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(each) for name, each in matrices.items()}
    file.set_parameters(values)
    file.export_adapter(str(destination))
    with destination.open("ab") as stream:
        stream.write(trailer(adapter_facts(source, base, canonical)))
    return canonical


def graph_matrices(
    pairs: Mapping[str, LowRank], layers: Mapping[str, tuple[int, int]], places: GraphMap
) -> dict[str, NDArray[np.float32]]:
    """A [in, rank] and B [rank, out] by the graph's input names, for ``layers`` [in, out] that take adapters.

    A matrix may hold several layers, then their ranks stand in a row, and B is zero but where a layer's rank meets its
    outputs.  A layer may stand in several matrices, then each has its A.

    Raises:
        InputError: a layer that the graph doesn't have.
    """
    grouped: dict[str, list[tuple[Piece, LowRank]]] = {}
    for name, pair in pairs.items():
        found = places.places(name)
        if not found or any(piece.matrix not in layers for piece in found):
            raise InputError(f"the ONNX graph has no place for a change of {name}", OTHER_FORMAT)
        for piece in found:
            grouped.setdefault(piece.matrix, []).append((piece, pair))
    matrices: dict[str, NDArray[np.float32]] = {}
    for layer, parts in grouped.items():
        inputs, outputs = layers[layer]
        if any(pair.a.shape[1] != inputs or piece.outputs.stop > outputs for piece, pair in parts):
            raise InputError(f"the adapter doesn't fit {layer} of the base", "export it with its own base")
        a, b = _joined(parts, inputs, outputs)
        matrices[layer + LORA_A] = np.ascontiguousarray(a.numpy(), dtype=np.float32)
        matrices[layer + LORA_B] = np.ascontiguousarray(b.numpy(), dtype=np.float32)
    return matrices


def _joined(parts: Sequence[tuple[Piece, LowRank]], inputs: int, outputs: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ranks of a layer whose rows stand in several places stand there once."""
    modules = dict.fromkeys(piece.module for piece, _ in sorted(parts, key=lambda part: part[0].output))
    rank = max(pair.rank for _, pair in parts)
    a, b = torch.zeros(inputs, rank * len(modules)), torch.zeros(rank * len(modules), outputs)
    starts = {module: number * rank for number, module in enumerate(modules)}
    for piece, part in parts:
        pair, at = part.padded(rank), starts[piece.module]
        a[:, at : at + rank] = pair.a.T
        b[at : at + rank, piece.outputs] = pair.b[piece.rows].T
    return a, b
