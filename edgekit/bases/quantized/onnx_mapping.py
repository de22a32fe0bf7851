"""Which blocks of an ONNX base are which Hugging Face parameter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from edgekit.bases.quantized.block_formats import ONNX_TYPES
from edgekit.bases.quantized.mapping import OTHER_PRECISION, StoredTensor, stored_floats, tied_output
from edgekit_exporters.hf.float_model import load_float
from edgekit_exporters.onnx.base import blocks_of
from edgekit_exporters.onnx.blocks import Blocks
from edgekit_exporters.onnx.graph_map import GraphMap, Piece
from edgekit_runtime.errors import InputError


def onnx_tensors(folder: Path, model: Any, floats: Path) -> Iterator[tuple[str, StoredTensor]]:
    """Yield what ``model`` keeps, each with the blocks that an ONNX base has for it, or floats where it has none.

    Args:
        folder: the base, as :func:`~edgekit_exporters.onnx.base.base_onnx` writes it.
        model: the transformers model of the same config; only names and shapes of its parameters are used.
        floats: the Hugging Face folder that the base was made from; norms and biases are the same in both.

    Raises:
        InputError: blocks that the model has no place for.
    """
    found, places = blocks_of(folder), GraphMap.read(folder)
    tied = tied_output(model)
    output = tied.removesuffix(".weight") if tied else ""
    embedding = f"{_name_of(model, model.get_input_embeddings())}.weight"
    used: set[str] = set()
    rest = _Floats(floats)
    for name, parameter in model.named_parameters():
        if name == tied:
            continue
        module = output if tied and name == embedding else name.removesuffix(".weight")
        pieces = places.places(module)
        if not pieces or any(piece.matrix not in found for piece in pieces):
            yield name, rest.tensor(name)
            continue
        used.update(piece.matrix for piece in pieces)
        yield name, _stored(found, pieces, parameter.shape)
    persistent = model.state_dict().keys()
    for name, _ in model.named_buffers():
        if name in persistent:
            yield name, rest.tensor(name)
    if unused := sorted(set(found) - used):
        raise InputError(
            f"the ONNX base has blocks that {model.config.model_type} has no place for: {', '.join(unused[:3])}",
            OTHER_PRECISION,
        )


@dataclass(frozen=True)
class _Floats:
    """The weights of a Hugging Face folder under the names of transformers' model."""

    folder: Path

    def tensor(self, name: str) -> StoredTensor:
        stored = self._files.get(name)
        if stored is None and name in self._loaded:  # transformers makes it of several: experts
            return stored_floats(self._loaded[name])
        if stored is None:
            raise InputError(f"{self.folder} has no weights for {name}", "download the model again")
        with safe_open(stored, framework="pt") as file:
            return stored_floats(file.get_tensor(name))

    @cached_property
    def _files(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for path in sorted(self.folder.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                found |= dict.fromkeys(file.keys(), path)
        return found

    @cached_property
    def _loaded(self) -> dict[str, torch.Tensor]:
        state: dict[str, torch.Tensor] = load_float(self.folder, "auto").state_dict()
        return state


def _name_of(model: Any, wanted: Any) -> str:
    return str(next(name for name, module in model.named_modules() if module is wanted))


def _stored(found: Mapping[str, Blocks], pieces: Sequence[Piece], shape: torch.Size) -> StoredTensor:
    """Rows of matrices as a block format: scale, zero and codes of a block together."""
    bits = {found[piece.matrix].bits for piece in pieces}
    assert len(bits) == 1, "a layer is rounded in one way"
    rows: list[torch.Tensor] = []
    for piece in sorted(pieces, key=lambda piece: piece.row):
        blocks, outputs = found[piece.matrix], piece.outputs
        codes = blocks.packed_codes()[outputs]
        scales = blocks.scales[outputs].half().unsqueeze(-1).view(torch.uint8)
        zeros = blocks.zeros[outputs].unsqueeze(-1)
        rows.append(torch.cat([scales, zeros, codes.view(*scales.shape[:2], -1)], -1).flatten(1))
    return StoredTensor(torch.cat(rows), ONNX_TYPES[bits.pop()], shape)
