"""The blocks of a GGUF file as parameters of the transformers model that it was made from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor

from edgekit.bases.quantized.blocks import QuantizedBlocks, dequantize
from edgekit_exporters.conversion.tensor_map import Piece, TensorMap, rows_of
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.gguf import GgufFile, TensorInfo, read_gguf

ALL = slice(None)
OTHER_PRECISION = "use base_precision nf4 or bf16 for this model"
# Derived from the config, so they have no parameter: frequencies of scaled rotary embeddings.
DERIVED = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")


@dataclass(frozen=True)
class StoredTensor:
    """One parameter's blocks.

    Attributes:
        blocks: uint8 [rows, bytes of a row], in the parameter's order of rows.
        type_name: GGUF's name of the type.
        shape: of the parameter.
        shift: what the conversion added to its values.
        factors: what it multiplied each row with, [rows, 1]; None for 1.
        columns: the parameter's column in each column of the blocks; None where they stand as they were.
        transposed: rows run along the parameter's last axis (GPT-2's Conv1D).
    """

    blocks: Tensor
    type_name: str
    shape: torch.Size
    shift: float = 0.0
    factors: Tensor | None = None
    columns: Tensor | None = None
    transposed: bool = False

    def packed(self) -> QuantizedBlocks:
        """The matrix as packed blocks in memory of their own; a transposed one as [out, in].

        Raises:
            InputError: a conversion that added to values, which blocks can't undo.
        """
        if self.shift != 0.0:
            raise InputError("the conversion to GGUF changes the values of a matrix of this model", OTHER_PRECISION)
        return QuantizedBlocks(self.blocks, self.type_name, self.columns, self.factors)

    def floats(self, dtype: torch.dtype) -> Tensor:
        """The parameter as the float model has it."""
        values = QuantizedBlocks(self.blocks, self.type_name, self.columns).dequantize(torch.float32)
        values = values - self.shift if self.shift else values
        values = values if self.factors is None else values / self.factors
        if self.transposed:
            *leading, inputs, outputs = self.shape
            values = values.view(*leading, outputs, inputs).transpose(-1, -2)
        return values.reshape(self.shape).to(dtype)


def stored_tensors(path: Path, mapping: TensorMap, hf_folder: Path | None) -> Iterator[tuple[str, StoredTensor]]:
    """Yield each parameter with what the GGUF file has for it.

    Args:
        path: a GGUF model.
        mapping: of the model that it was made from.
        hf_folder: that model's folder, for parameters that the file holds in another form (Mamba's decay), or None.

    Raises:
        InputError: the file isn't of that model: another architecture, a parameter without a tensor, a tensor without
            a parameter, or two shapes that differ.
    """
    file = read_gguf(path)
    _check(file, mapping)
    content = torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8)
    for name, shape in mapping.parameters.items():
        pieces = cover(mapping, name)
        if beside := _side_by_side(mapping, name, shape):
            yield name, _joined(file, content, beside, torch.Size(shape))
        elif pieces:
            yield name, _stored(file, content, pieces, torch.Size(shape))
        else:
            yield name, float_tensor(hf_folder, name)


def float_tensor(folder: Path | None, name: str) -> StoredTensor:
    """A parameter as a Hugging Face folder has it.

    Raises:
        InputError: it has no such tensor.
    """
    for path in sorted(folder.glob("*.safetensors")) if folder else ():
        with safe_open(path, framework="pt") as file:
            if name in file.keys():  # noqa: SIM118 (no mapping)
                return stored_floats(file.get_tensor(name))
    if folder is None:
        raise InputError(f"GGUF holds {name} in a form that can't be turned back", OTHER_PRECISION)
    raise InputError(f"{folder} has no weights for {name}", "download the model again")


def stored_floats(value: Tensor) -> StoredTensor:
    """A parameter as it is."""
    rows = value.shape[0] if value.dim() > 1 else 1
    return StoredTensor(value.float().reshape(rows, -1).view(torch.uint8), "F32", value.shape)


def tied_output(model: Any) -> str | None:
    """Name of the output matrix when it is the embedding's, else None."""
    if not model.config.tie_word_embeddings:
        return None
    output = model.get_output_embeddings()
    return next(f"{name}.weight" for name, module in model.named_modules() if module is output)


def _check(file: GgufFile, mapping: TensorMap) -> None:
    architecture = file.metadata.get("general.architecture")
    if architecture != mapping.architecture:
        raise InputError(
            f"{file.path.name} is a {architecture}, the Hugging Face folder a {mapping.architecture}",
            "give the folder of the same model",
        )
    mend = "give the config of this very model"
    if unused := set(file.tensors) - set(mapping.shapes) - set(mapping.derived) - set(DERIVED):
        problem = f"{file.path.name} has tensors that {architecture} has no place for: {_some(unused)}"
        raise InputError(problem, mend)
    if missing := [name for name in mapping.shapes if name not in file.tensors]:
        parameters = {piece.parameter for name in missing for piece in mapping.pieces[name]} or set(missing)
        raise InputError(f"{file.path.name} has no tensor for {_some(parameters)}", mend)
    for name, shape in mapping.shapes.items():
        stored = tuple(reversed(file.tensors[name].shape))
        if _plain(stored) != _plain(shape):
            parameter = next((piece.parameter for piece in mapping.pieces[name]), name)
            wanted = mapping.parameters.get(parameter, shape)
            raise InputError(f"{name} is {stored} in the GGUF file, {parameter} is {wanted} by the config", mend)


def _plain(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def cover(mapping: TensorMap, name: str) -> list[Piece]:
    """The pieces that hold a parameter's rows once; none where some are in no tensor, but for the last ones."""
    covered: set[int] = set()
    chosen = []
    for piece in mapping.by_parameter[name]:
        places = set(piece.places.tolist())
        if not places <= covered:  # else a copy: an output matrix beside the embedding
            chosen.append(piece)
            covered |= places
    return chosen if chosen and covered == set(range(len(covered))) else []


def _side_by_side(mapping: TensorMap, name: str, shape: tuple[int, ...]) -> list[Piece]:
    """Pieces that hold different columns of all rows (biases of gpt-oss's experts); none where they don't."""
    pieces = mapping.by_parameter[name]
    columns = [piece.columns for piece in pieces if piece.columns is not None]
    if len(columns) < 2 or len(columns) < len(pieces) or any(piece.transposed for piece in pieces):
        return []
    return pieces if sorted(np.concatenate(columns).tolist()) == list(range(shape[-1])) else []


def _joined(file: GgufFile, content: Tensor, pieces: list[Piece], shape: torch.Size) -> StoredTensor:
    whole = torch.empty(rows_of(tuple(shape), pieces[0]), shape[-1])
    for piece in pieces:
        info = file.tensors[piece.tensor]
        values = dequantize(_rows(info, content, piece), info.type_name)
        whole[torch.from_numpy(piece.places)[:, None], torch.from_numpy(piece.columns)] = values
    first = pieces[0]
    return StoredTensor(whole.view(torch.uint8), "F32", shape, first.shift, _factors([first], len(whole)))


def _stored(file: GgufFile, content: Tensor, pieces: list[Piece], shape: torch.Size) -> StoredTensor:
    infos = [file.tensors[piece.tensor] for piece in pieces]
    parts = [_rows(info, content, piece) for info, piece in zip(infos, pieces, strict=True)]
    as_vector = len(_plain(tuple(infos[0].shape))) < 2
    return put_together(pieces, parts, [info.type_name for info in infos], shape, as_vector=as_vector)


def put_together(
    pieces: Sequence[Piece], parts: list[Tensor], types: list[str], shape: torch.Size, *, as_vector: bool = False
) -> StoredTensor:
    """A parameter from what tensors hold of it.

    Args:
        pieces: that cover its rows once.
        parts: blocks of each piece [rows of the piece, bytes of a row].
        types: of each piece's tensor.
        shape: of the parameter.
        as_vector: whether GGUF has it as one.
    """
    if len(set(types)) > 1:  # one matrix in two types: floats hold both
        parts = [dequantize(part, kind).view(torch.uint8) for part, kind in zip(parts, types, strict=True)]
        types = ["F32"]
    order = np.argsort(np.concatenate([piece.places for piece in pieces]), kind="stable")
    blocks = torch.cat(parts) if len(parts) > 1 else parts[0]
    if (order != np.arange(len(order))).any():
        blocks = blocks[torch.from_numpy(order)]
    first = pieces[0]
    # Gemma's converter drops the rows of tokens that the tokenizer doesn't have.
    blocks = torch.nn.functional.pad(blocks, (0, 0, 0, max(rows_of(tuple(shape), first) - len(blocks), 0)))
    if len(shape) == 2 and as_vector:
        blocks = blocks.reshape(shape[0], -1)  # a matrix of one row, which GGUF has as a vector
    columns = None if first.columns is None else torch.from_numpy(first.columns)
    factors = _factors(pieces, len(blocks), order)
    return StoredTensor(blocks, types[0], shape, first.shift, factors, columns, first.transposed)


def _factors(pieces: Sequence[Piece], rows: int, order: NDArray[np.int64] | slice = ALL) -> Tensor | None:
    """[rows, 1] of all pieces, in the parameter's order of rows; None where values are what they were."""
    scales = {piece.scale for piece in pieces if isinstance(piece.scale, float)}
    if len(scales) == 1 and all(isinstance(piece.scale, float) for piece in pieces):
        scale = scales.pop()
        return None if scale == 1.0 else torch.full((rows, 1), scale)
    each = np.concatenate([np.broadcast_to(piece.factors, (len(piece.rows), 1)) for piece in pieces])[order]
    return torch.nn.functional.pad(torch.from_numpy(each), (0, 0, 0, max(rows - len(each), 0)), value=1.0)


def _rows(info: TensorInfo, content: Tensor, piece: Piece) -> Tensor:
    """The bytes of a piece's rows; a vector counts as a column of single values."""
    total = int(np.prod(info.shape[1:])) if len(_plain(tuple(info.shape))) > 1 else int(np.prod(info.shape))
    raw = content[info.offset : info.offset + info.size].view(total, -1)
    if len(piece.rows) == total and (piece.rows == np.arange(total)).all():
        return raw
    return raw[torch.from_numpy(piece.rows)]


def _some(names: Iterable[str]) -> str:
    shown = sorted(names)[:3]
    more = len(list(names)) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
