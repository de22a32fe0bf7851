"""An adapter folded into the blocks that devices run: W + scale B A, quantized by the arithmetic of an export.

Training, evaluation and export of a merged adapter all ask here, so they have the same blocks, to the bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgekit.bases.quantized import QuantizedBlocks
from edgekit.bases.quantized.block_formats import FLOATS
from edgekit.bases.quantized.mapping import cover, put_together
from edgekit.bases.weights import Weights, deployed_recipe
from edgekit.project import Project
from edgekit_exporters.base import Base
from edgekit_exporters.conversion.tensor_map import Piece, TensorMap, tensor_map
from edgekit_exporters.gguf.blocks import blocks_digest, quantized_rows, tensor_blocks, write_with_blocks
from edgekit_exporters.gguf.imatrix import read_imatrix
from edgekit_exporters.hf.float_model import load_float
from edgekit_exporters.peft.intake import TakenAdapter
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.gguf import TensorInfo, read_gguf

Pair = tuple[Tensor, Tensor, float]  # A [rank, in], B [out, rank], what B @ A is multiplied by


@dataclass(frozen=True)
class Fold:
    """How the weight of one layer becomes blocks.

    Attributes:
        weight: of the float base [out, in], at the narrowest type that holds it.
        pieces: what GGUF tensors hold of it.
        infos: these tensors.
        importance: of their columns; None without an importance matrix.
    """

    weight: Tensor
    pieces: tuple[Piece, ...]
    infos: tuple[TensorInfo, ...]
    importance: tuple[NDArray[Any] | None, ...]

    def floats(self, pair: Pair) -> Tensor:
        """W + scale B A, float32 [out, in].

        The sum is made in float64 and rounded once: then the order of additions, which differs between machines and
        numbers of threads, changes no bit of it but in cases as rare as ties.
        """
        a, b, scale = (pair[0].detach().cpu().double(), pair[1].detach().cpu().double(), pair[2])
        return torch.addmm(self.weight.double(), b, a, alpha=scale).float()

    def part(self, number: int, floats: Tensor) -> NDArray[np.uint8]:
        """Blocks of what piece ``number`` holds of ``floats``: [rows of the piece, bytes of a row]."""
        piece = self.pieces[number]
        rows = floats if _in_order(piece.places, len(floats)) else floats[torch.from_numpy(piece.places)]
        if piece.columns is not None:
            rows = rows[:, torch.from_numpy(piece.columns)]
        if not isinstance(piece.scale, float) or piece.scale != 1.0:
            rows = rows * torch.from_numpy(piece.factors)
        return quantized_rows(
            rows.numpy(), self.infos[number].type_name, self.importance[number], threads=torch.get_num_threads()
        )

    def blocks(self, pair: Pair) -> QuantizedBlocks:
        """The layer's blocks, in the order of the float model; floats where the numbers of a training diverge."""
        floats = self.floats(pair)
        if not torch.isfinite(floats).all():
            return QuantizedBlocks(floats.view(torch.uint8), "F32")
        parts = [torch.from_numpy(self.part(number, floats)) for number in range(len(self.pieces))]
        types = [info.type_name for info in self.infos]
        return put_together(self.pieces, parts, types, self.weight.shape).packed()


class Folding:
    """How layers of a base become blocks."""

    def __init__(self, project: Project, base: Base, weights: Weights) -> None:
        """Take what is known of the blocks that devices run; ``weights`` have them."""
        assert weights.blocks is not None
        assert weights.quantization is not None
        self.file = weights.blocks
        self._base = base
        self._mapping: TensorMap = tensor_map(base.folder)
        self._infos = read_gguf(self.file).tensors
        imatrix = deployed_recipe(project, base, weights.quantization).imatrix
        self._importance: Mapping[str, NDArray[Any]] = read_imatrix(imatrix) if imatrix else {}
        self._folds: dict[str, Fold] = {}

    def folds(self, layers: Iterable[str]) -> dict[str, Fold]:
        """The folds of linear layers, by their names in the float model; its weights are loaded for it once.

        Raises:
            InputError: no tensor holds the weight of one as a matrix of its own.
        """
        found = {layer: self._pieces(layer) for layer in layers}
        if any(layer not in self._folds for layer in found):
            state: dict[str, Tensor] = load_float(self._base.folder).state_dict()  # from which exports merge too
            for layer, pieces in found.items():
                infos = tuple(self._infos[piece.tensor] for piece in pieces)
                importance = tuple(self._importance.get(piece.tensor) for piece in pieces)
                self._folds[layer] = Fold(_narrow(state[f"{layer}.weight"]), pieces, infos, importance)
        return {layer: self._folds[layer] for layer in found}

    def changes(self, pairs: Mapping[str, Pair]) -> Iterator[tuple[str, NDArray[np.uint8]]]:
        """Each tensor that changes and its blocks with the pairs in them, by name; the others' rows are the base's.

        Args:
            pairs: of layers by their names in the float model.

        Raises:
            InputError: as :meth:`folds`, or numbers that are not finite.
        """
        folds = self.folds(pairs)
        by_tensor: dict[str, list[tuple[str, int]]] = {}
        for layer, fold in folds.items():
            for number, piece in enumerate(fold.pieces):
                by_tensor.setdefault(piece.tensor, []).append((layer, number))
        for tensor, holders in sorted(by_tensor.items()):
            blocks = np.array(tensor_blocks(self.file, self._infos[tensor]))
            for layer, number in holders:
                fold, floats = folds[layer], folds[layer].floats(pairs[layer])
                if not torch.isfinite(floats).all():
                    raise InputError(
                        f"{layer} with the adapter in it holds numbers that are not finite",
                        "the training diverged: train again with a lower learning rate",
                    )
                blocks[fold.pieces[number].rows] = fold.part(number, floats)
            yield tensor, blocks

    def tensors(self, layers: Iterable[str]) -> list[str]:
        """Names of the tensors that hold these layers."""
        return sorted({piece.tensor for layer in layers for piece in self._pieces(layer)})

    def write(self, pairs: Mapping[str, Pair], destination: Path) -> None:
        """Write the base's file with the pairs in its blocks.

        Raises:
            InputError: as :meth:`changes`.
        """
        write_with_blocks(self.file, destination, self.changes(pairs))

    def digest(self, pairs: Mapping[str, Pair]) -> str:
        """sha256 of the tensors that :meth:`write` changes.

        Raises:
            InputError: as :meth:`changes`.
        """
        return blocks_digest(self.changes(pairs))

    def _pieces(self, layer: str) -> tuple[Piece, ...]:
        name = f"{layer}.weight"
        pieces = self._mapping.adaptable(layer)
        shape = self._mapping.parameters.get(name, ())
        sound = (
            len(shape) == 2
            and len(pieces) > 0
            and pieces == cover(self._mapping, name)
            and not any(piece.transposed or piece.shift for piece in pieces)
        )
        if not sound:
            raise InputError(
                f"merged: true can't train {layer}: no matrix of the file that devices run holds its weight alone",
                "leave it out of targets, or train without merged",
            )
        return tuple(pieces)


def pairs_of(adapter: TakenAdapter) -> dict[str, Pair]:
    """The pairs of a saved adapter, as PEFT holds them when it is attached."""
    weights, scales = adapter.weights, adapter.resolved.scales
    return {name: (weights[a], weights[b], scales[name]) for name, (a, b) in adapter.resolved.pairs.items()}


def _in_order(places: NDArray[np.int64], count: int) -> bool:
    return len(places) == count and bool((places == np.arange(count)).all())


def _narrow(weight: Tensor) -> Tensor:
    """The same values in half the memory, where a float base was stored so."""
    for dtype in (FLOATS["BF16"], FLOATS["F16"]):
        narrow = weight.to(dtype)
        if torch.equal(narrow.float(), weight):
            return narrow
    return weight.clone()
