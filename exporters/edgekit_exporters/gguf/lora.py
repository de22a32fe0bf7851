"""Pairs A, B of a base's modules as pairs of GGUF tensors, and the file that llama.cpp reads them from.

llama.cpp adds ``B @ A`` to what a tensor computes, so a pair follows its tensor: rows of B stand as the tensor's rows,
columns of A as its columns.  A tensor that holds rows of several modules gets the pairs of all of them.
"""

from __future__ import annotations

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
    """Pairs by GGUF tensor: A [rank, in], B [out, rank]; the embedding's A is [tokens, rank]."""

    architecture: str
    pairs: Mapping[str, tuple[torch.Tensor, torch.Tensor]]


def lora_pairs(layers: Mapping[str, LowRank], mapping: TensorMap) -> LoraPairs:
    """The pairs of modules as those of tensors, all of one rank.

    Raises:
        InputError: a module whose weight no tensor holds as it is.
    """
    parts: dict[str, list[tuple[Piece, LowRank]]] = {}
    for module, layer in layers.items():
        pieces = mapping.adaptable(module)
        if not pieces:
            raise InputError(
                f"llama.cpp has no place for a change of {module}: no {mapping.architecture} matrix holds its weight",
                "train without this module (targets), or merge the adapter (mode: merged)",
            )
        for piece in pieces[:1] if layer.embedding else pieces:
            parts.setdefault(piece.tensor, []).append((piece, layer))
    rank = max(sum(layer.rank for _, layer in each) for each in parts.values())
    pairs = {tensor: _pair(each, mapping.shapes[tensor], rank) for tensor, each in parts.items()}
    return LoraPairs(mapping.architecture, pairs)


def write_lora(made: LoraPairs, destination: Path, float_type: str) -> None:
    """Write a LoRA GGUF with nothing but what llama.cpp needs.  Q8_0 is F16 where rows are no whole blocks."""
    writer = gguf.GGUFWriter(destination, made.architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    rank = next(iter(made.pairs.values()))[1].shape[1]
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(rank))
    for tensor, pair in made.pairs.items():
        for suffix, value in zip((keys.SUFFIX_A, keys.SUFFIX_B), pair, strict=True):
            kind = gguf.GGMLQuantizationType[float_type]
            if value.shape[1] % gguf.GGML_QUANT_SIZES[kind][0]:
                kind = gguf.GGMLQuantizationType.F16
            writer.add_tensor(tensor + suffix, gguf.quantize(value.contiguous().numpy(), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _pair(parts: list[tuple[Piece, LowRank]], shape: tuple[int, ...], rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The pair of one tensor, filled up with zeros to ``rank``: one file has one rank."""
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


def _taken(matrix: torch.Tensor, columns: np.ndarray | None) -> torch.Tensor:
    return matrix if columns is None else matrix[:, torch.from_numpy(columns)]
