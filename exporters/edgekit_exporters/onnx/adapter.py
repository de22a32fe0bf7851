"""An adapter as one ``.onnx_adapter`` file, from the same canonical LoRA as a GGUF adapter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from edgekit_exporters.base import Base
from edgekit_exporters.gguf.adapter import AdapterSource, adapter_facts, canonical_adapter
from edgekit_exporters.onnx.builder import require_onnx
from edgekit_exporters.onnx.layer_names import FUSED_MODULES, fused_rows, graph_layer
from edgekit_exporters.peft.canonical import CanonicalAdapter, LowRank
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.onnx_adapter import model_version, trailer
from edgekit_runtime.formats.onnx_base import LORA_A, LORA_B

ADAPTER_VERSION = 1


def write_adapter_onnx(
    source: AdapterSource, base: Base, destination: Path, layers: Mapping[str, tuple[int, int]]
) -> CanonicalAdapter:
    """Write ``destination``, which ONNX Runtime GenAI loads too.

    Args:
        source: the adapter.
        base: that it was trained on.
        destination: the file.
        layers: [in, out] of the layers of the base's graph that take adapters.

    Returns:
        The canonical adapter whose pairs are in the file.

    Raises:
        InputError: the adapter isn't low-rank additive, is damaged, of another base, or changes what the graph can't.
    """
    require_onnx()
    import onnxruntime

    canonical = canonical_adapter(source, base, onnx=True)
    matrices = graph_matrices(canonical, layers, base.folder)
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
    canonical: CanonicalAdapter, layers: Mapping[str, tuple[int, int]], folder: Path
) -> dict[str, NDArray[np.float32]]:
    """A [in, rank] and B [rank, out] by the graph's input names.

    Of a fused layer the ranks of its parts stand in a row, and B is zero but where a part's rank meets its outputs.

    Raises:
        InputError: a layer that the graph doesn't have.
    """
    rows = fused_rows(folder)
    grouped: dict[str, dict[str | None, LowRank]] = {}
    for name, pair in canonical.layers.items():
        found = graph_layer(name, layers)
        if found is None or pair.transposed:
            raise InputError(f"the ONNX graph has no adapter inputs for {name}", "export with --format gguf")
        layer, part = found
        grouped.setdefault(layer, {})[part] = pair
    matrices: dict[str, NDArray[np.float32]] = {}
    for layer, parts in grouped.items():
        whole = parts.get(None)
        fused = {part: pair for part, pair in parts.items() if part is not None}
        a, b = (whole.a.T, whole.b.T) if whole is not None else _joined(fused, layers[layer], rows)
        if (a.shape[0], b.shape[1]) != layers[layer]:
            raise InputError(f"the adapter doesn't fit {layer} of the base", "export it with its own base")
        matrices[layer + LORA_A] = np.ascontiguousarray(a.numpy(), dtype=np.float32)
        matrices[layer + LORA_B] = np.ascontiguousarray(b.numpy(), dtype=np.float32)
    return matrices


def _joined(
    parts: Mapping[str, LowRank], shape: tuple[int, int], rows: Mapping[str, tuple[int, int]]
) -> tuple[torch.Tensor, torch.Tensor]:
    rank = max(pair.rank for pair in parts.values())
    a, b = torch.zeros(shape[0], rank * len(parts)), torch.zeros(rank * len(parts), shape[1])
    for number, module in enumerate(sorted(parts, key=FUSED_MODULES.index)):
        pair, at = parts[module].padded(rank), number * rank
        start, stop = rows[module]
        a[:, at : at + rank] = pair.a.T
        b[at : at + rank, start:stop] = pair.b.T
    return a, b
