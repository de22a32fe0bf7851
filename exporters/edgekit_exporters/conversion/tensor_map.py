"""Which GGUF tensor holds which parameter of a base, and in which order: found out from the converter itself.

A conversion renames parameters.  For some architectures it also reorders rows (rotary heads of llama), adds to norms
(Gemma), splits or stacks matrices (experts).  So the converter of the installed llama.cpp is fed once with tensors that
hold their own element numbers; see ``in_converter.py``.  The result depends on the configuration alone and is kept in
the cache.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit_exporters.cache import cache_folder, cached
from edgekit_exporters.conversion.converters import CONVERSION, convert_plain, derive_map
from edgekit_exporters.progress import stage

# Some converters drop the embedding's rows beyond the tokenizer's last token.
TOKENIZERS = ("tokenizer.json", "tokenizer.model")
Indices = NDArray[np.int64]
Factors = NDArray[np.float64]


@dataclass(frozen=True)
class Piece:
    """What one tensor holds of one parameter.

    ``tensor[rows[i], c] = scale * parameter[places[i], columns[c]] + shift``.
    Rows of both are counted over all axes but the one that runs along the tensor's rows.

    Attributes:
        tensor: name in GGUF.
        parameter: name in transformers' model.
        rows: of the tensor [n].
        places: the parameter's rows [n] that stand there.
        columns: the parameter's column in each column of the tensor; None where they stand as they were.
        transposed: the parameter's last axis runs along the tensor's rows (GPT-2's Conv1D).
        scale, shift: what the conversion does to values; a scale of each row [n] where they differ.
    """

    tensor: str
    parameter: str
    rows: Indices
    places: Indices
    columns: Indices | None
    transposed: bool
    scale: float | Factors
    shift: float

    @property
    def factors(self) -> NDArray[np.float32]:
        """The scale as a column, [rows, 1] or [1, 1]."""
        return np.asarray(self.scale, np.float32).reshape(-1, 1)


@dataclass(frozen=True)
class TensorMap:
    """What the conversion does to a base.

    Attributes:
        architecture: GGUF's name of it.
        parameters: shape by name; a tied output matrix has none of its own.
        shapes: of the GGUF tensors, rows first.
        pieces: of each tensor; none for one whose values are computed from the parameter in another way.
        derived: tensors that are made from the configuration, or that nobody reads.
    """

    architecture: str
    parameters: Mapping[str, tuple[int, ...]]
    shapes: Mapping[str, tuple[int, ...]]
    pieces: Mapping[str, tuple[Piece, ...]]
    derived: frozenset[str]

    @cached_property
    def by_parameter(self) -> dict[str, list[Piece]]:
        """The pieces of each parameter; none for one that no tensor holds as it is."""
        found: dict[str, list[Piece]] = {name: [] for name in self.parameters}
        for pieces in self.pieces.values():
            for piece in pieces:
                found[piece.parameter].append(piece)
        return found

    def adaptable(self, name: str) -> list[Piece]:
        """The pieces of a module's weight, all in matrices; none where a part of it stands in anything else.

        Compressed attention's projections stand as one matrix a head, which the engine multiplies without adapters.
        A parameter that holds the matrices of all experts, by its own name, may stand in tensors that do, too.
        """
        parameter = name if name in self.parameters else f"{name}.weight"
        pieces = self.by_parameter.get(parameter, [])
        most = len(self.parameters.get(parameter, ()))
        sizes = [[size for size in self.shapes[piece.tensor] if size != 1] for piece in pieces]
        return pieces if all(2 <= len(each) <= most for each in sizes) else []

    @property
    def computed(self) -> list[str]:
        """Tensors whose values are neither a parameter's nor made from the configuration."""
        return [name for name, pieces in self.pieces.items() if not pieces]


def tensor_map(folder: Path) -> TensorMap:
    """The map of the base in ``folder``: what it says of itself is read, not its weights.

    Raises:
        InputError: llama.cpp's converter doesn't know the architecture, or transformers doesn't.
    """
    return _read(cached(_place(folder), lambda file: _make(folder, file)))


def plain_ggufs(folders: Sequence[Path]) -> list[tuple[Path | str, Path | str]]:
    """GGUF files at F32 without vocabularies, for tiny models that only compute; their maps go into the cache.

    Returns:
        For each folder the file in it and the one in its folder ``merged``, or why there is none.
    """
    convert_plain(folders)
    for folder in folders:
        if (folder / "map.npz").is_file():
            cached(_place(folder), functools.partial(shutil.copyfile, folder / "map.npz"))
    return [(_made(folder), _made(folder / "merged")) for folder in folders]


def _made(folder: Path) -> Path | str:
    error = folder / "error.txt"
    if error.is_file():
        return error.read_text(encoding="utf-8")
    return folder / "plain.gguf" if (folder / "plain.gguf").is_file() else "the converter dies or takes too long"


def _place(folder: Path) -> Path:
    """Of a map in the cache."""
    digest = hashlib.sha256(Path(folder, "config.json").read_bytes())
    sizes = [path.stat().st_size for path in (folder / name for name in TOKENIZERS) if path.is_file()]
    digest.update(f"{CONVERSION}:{sizes}".encode())
    return cache_folder("tensor-maps") / f"{digest.hexdigest()[:24]}.npz"


def _make(folder: Path, file: Path) -> None:
    with (
        stage("finding out which tensor holds which parameter"),
        tempfile.TemporaryDirectory(dir=file.parent, prefix=".map-") as scratch,
    ):
        made = Path(scratch, "map.npz")
        derive_map(folder, made)
        made.replace(file)


@functools.lru_cache(maxsize=8)
def _read(file: Path) -> TensorMap:
    content = np.load(file, allow_pickle=False)
    facts: dict[str, Any] = json.loads(str(content["facts"]))
    arrays = iter([content[str(number)] for number in range(len(content.files) - 1)])
    parameters = {name: tuple(shape) for name, shape in facts["parameters"].items()}
    return TensorMap(
        architecture=facts["architecture"],
        parameters=parameters,
        shapes={each["name"]: tuple(each["shape"]) for each in facts["tensors"]},
        pieces={each["name"]: tuple(_pieces(each, parameters, arrays)) for each in facts["tensors"]},
        derived=frozenset(facts["derived"]),
    )


def _pieces(facts: dict[str, Any], parameters: Mapping[str, tuple[int, ...]], arrays: Any) -> list[Piece]:
    if not facts["known"]:
        return []
    names = list(parameters)
    source = next(arrays)
    by_axis = {axis: next(arrays).astype(np.int64) for axis in facts["row_axes"]}
    column_axis = facts["column_axis"]
    columns = None if column_axis is None else next(arrays).astype(np.int64)
    if columns is not None and (columns == np.arange(len(columns))).all():
        columns = None
    factors = next(arrays) if facts["has_factors"] else None
    made = []
    for number in dict.fromkeys(source.tolist()):
        shape = parameters[names[number]]
        rows = np.flatnonzero(source == number)
        axes = [axis for axis in range(len(shape)) if axis != column_axis]
        places = np.zeros(len(rows), np.int64)
        for axis in axes:
            along = by_axis[axis][rows] if axis in by_axis else 0
            places = places * shape[axis] + along
        scale = facts["scale"] if factors is None else factors[rows]
        transposed = column_axis is not None and column_axis != len(shape) - 1
        made.append(Piece(facts["name"], names[number], rows, places, columns, transposed, scale, facts["shift"]))
    return made


def rows_of(shape: tuple[int, ...], piece: Piece) -> int:
    """How many rows a parameter of ``shape`` has, as a piece counts them."""
    columns = 1 if len(shape) < 2 else shape[-2] if piece.transposed else shape[-1]
    return math.prod(shape) // columns
