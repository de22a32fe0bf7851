"""Pairs A, B of a base's modules as pairs of GGUF tensors, and the file that llama.cpp reads them from.

llama.cpp adds ``B @ A`` to what a tensor computes, so a pair follows its tensor: rows of B stand as the tensor's rows,
columns of A as its columns.  A tensor that holds rows of several modules gets the pairs of all of them, one that holds
the matrices of all experts a pair for each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import torch

from edgekit_exporters.conversion.tensor_map import Piece, TensorMap
from edgekit_exporters.peft.canonical import LowRank
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats import adapter as keys


@dataclass(frozen=True)
class LoraPairs:
    """Pairs by GGUF tensor: A [rank, in], B [out, rank]; of experts A [experts, rank, in], B [experts, out, rank].

    The embedding's A is [tokens, rank].  ``rank`` is that of all pairs but those of single tokens.
    """

    architecture: str
    rank: int
    pairs: Mapping[str, tuple[torch.Tensor, torch.Tensor]]


def lora_pairs(layers: Mapping[str, LowRank], mapping: TensorMap) -> LoraPairs:
    """The pairs of modules as those of tensors, all of one rank but those that change single tokens.

    Raises:
        InputError: a module whose weight no tensor holds as it is.
    """
    parts: dict[str, list[tuple[Piece, LowRank]]] = {}
    for module, layer in layers.items():
        pieces = places_of(module, layer, mapping)
        if not pieces:
            raise InputError(
                f"llama.cpp has no place for a change of {module}: no {mapping.architecture} matrix holds its weight",
                "train without this module (targets), or merge the adapter (mode: merged)",
            )
        for piece in pieces:
            parts.setdefault(piece.tensor, []).append((piece, layer))
    ranks = {tensor: sum(layer.rank for _, layer in each) for tensor, each in parts.items()}
    single = {tensor for tensor, each in parts.items() if all(layer.tokens for _, layer in each)}
    rank = max((each for tensor, each in ranks.items() if tensor not in single), default=max(ranks.values()))
    pairs = {tensor: _pair(each, mapping.shapes[tensor], max(rank, ranks[tensor])) for tensor, each in parts.items()}
    return LoraPairs(mapping.architecture, rank, pairs)


def places_of(name: str, layer: LowRank, mapping: TensorMap) -> list[Piece]:
    """Where llama.cpp has a place for a pair; none of an embedding that is no token's.

    A tied embedding's other copies aren't: PEFT leaves the output matrix as it was.
    """
    pieces = mapping.adaptable(name)
    return [piece for piece in pieces if piece.tensor == keys.EMBEDDING] if layer.embedding else pieces


def write_lora(made: LoraPairs, destination: Path, float_type: str) -> None:
    """Write a LoRA GGUF with nothing but what llama.cpp needs.  Q8_0 is F16 where rows are no whole blocks."""
    writer = gguf.GGUFWriter(destination, made.architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(made.rank))
    for tensor, (a, b) in made.pairs.items():
        b = b * (b.shape[-1] / made.rank)  # llama.cpp multiplies by alpha / rank
        for suffix, value in ((keys.SUFFIX_A, a), (keys.SUFFIX_B, b)):
            kind = gguf.GGMLQuantizationType[float_type]
            if value.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0]:
                kind = gguf.GGMLQuantizationType.F16
            writer.add_tensor(tensor + suffix, gguf.quantize(value.contiguous().numpy(), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _pair(parts: list[tuple[Piece, LowRank]], shape: tuple[int, ...], rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The pair of one tensor, filled up with zeros to ``rank``."""
    if any(layer.stacked for _, layer in parts):
        return _stacked(parts, shape, rank)
    missing = rank - sum(layer.rank for _, layer in parts)
    pad = torch.nn.functional.pad
    if parts[0][1].embedding:
        ((piece, layer),) = parts
        a = torch.zeros(shape[0], layer.rank)
        a[torch.from_numpy(piece.rows)] = layer.a.T[torch.from_numpy(piece.places)] * torch.from_numpy(piece.factors)
        return pad(a, (0, missing)), pad(_taken(layer.b.T, piece.columns).T, (0, missing))
    above = torch.cat([_taken(layer.a, piece.columns) for piece, layer in parts])
    beside = []
    for piece, layer in parts:
        b = torch.zeros(shape[0], layer.rank)
        b[torch.from_numpy(piece.rows)] = layer.b[torch.from_numpy(piece.places)] * torch.from_numpy(piece.factors)
        beside.append(b)
    return pad(above, (0, 0, 0, missing)), pad(torch.cat(beside, 1), (0, missing))


def _stacked(
    parts: list[tuple[Piece, LowRank]], shape: tuple[int, ...], rank: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The pairs of all experts of a tensor [experts, out, in]; parts (gate and up) stand beside each other in rank."""
    *experts, outputs, inputs = shape
    count = math.prod(experts)
    a, b = torch.zeros(count, rank, inputs), torch.zeros(count, outputs, rank)
    start = 0
    for piece, layer in parts:
        # Which of the two halves runs along the tensor's rows.
        along, across = (layer.b, layer.a) if piece.transposed == layer.transposed else (layer.a.mT, layer.b.mT)
        taken = slice(start, start := start + layer.rank)
        expert, row = (torch.from_numpy(each) for each in np.divmod(piece.rows, outputs))
        source, place = (torch.from_numpy(each) for each in np.divmod(piece.places, along.shape[1]))
        a[expert.unique(), taken] = _taken(across, piece.columns)[_of_each(expert, source)]
        b[expert, row, taken] = along[source, place] * torch.from_numpy(piece.factors)
    return (a, b) if experts else (a[0], b[0])


def _of_each(experts: torch.Tensor, sources: torch.Tensor) -> torch.Tensor:
    """Of which expert of a parameter each of a tensor's experts is, in their order."""
    first = dict(zip(experts.tolist(), sources.tolist(), strict=True))
    return torch.tensor([first[expert] for expert in sorted(first)])


def _taken(matrix: torch.Tensor, columns: np.ndarray | None) -> torch.Tensor:
    return matrix if columns is None else matrix[..., torch.from_numpy(columns)]
