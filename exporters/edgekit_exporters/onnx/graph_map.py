"""Which matrix of a builder's graph holds which linear layer of the trained model: found by the values in them.

Names tell nothing here: builders stack layers (q, k and v), cut them (Phi's gate and up) and rename them (LFM2's w1).
Each row of a layer's weight is looked for among the outputs of the graph's matrices.  Where two layers hold the same
values, the builder is asked once more, with numbers that are nobody else's.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit_runtime.errors import InputError

log = logging.getLogger(__name__)

OTHER_FORMAT = "export it with --format gguf"
MAP_FILE = "layers.json"  # in the folder of a float graph, and of a base that was made from it
DIGEST_BYTES = 16
Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Piece:
    """Neighbouring outputs of a matrix that are neighbouring rows of a linear layer's weight.

    Attributes:
        matrix: the graph's name, without suffix.
        module: the trained model's name.
        output: the first of the matrix's outputs.
        row: the first of the layer's rows.
        count: how many.
    """

    matrix: str
    module: str
    output: int
    row: int
    count: int

    @property
    def outputs(self) -> slice:
        """Of the matrix."""
        return slice(self.output, self.output + self.count)

    @property
    def rows(self) -> slice:
        """Of the layer."""
        return slice(self.row, self.row + self.count)


@dataclass(frozen=True)
class GraphMap:
    """All pieces of a graph.

    Attributes:
        head: the matrix that gives logits.
        modules: rows of each linear layer of the trained model, the output matrix among them.
        pieces: in the order of the graph.
        routers: matrices that choose experts.
    """

    head: str
    modules: Mapping[str, int]
    pieces: tuple[Piece, ...]
    routers: frozenset[str] = frozenset()

    @cached_property
    def matrices(self) -> frozenset[str]:
        """Those that hold layers of the trained model, the head among them."""
        return frozenset(piece.matrix for piece in self.pieces)

    @cached_property
    def layers(self) -> frozenset[str]:
        """Those that take adapters."""
        return self.matrices - {self.head}

    def places(self, module: str) -> list[Piece]:
        """Where a layer is; nowhere if a part of it is missing."""
        found = [piece for piece in self.pieces if piece.module == module]
        held = np.zeros(self.modules.get(module, 0), bool)
        for piece in found:
            held[piece.rows] = True
        return found if held.all() else []

    @property
    def missing(self) -> list[str]:
        """Linear layers that no matrix holds."""
        return [module for module in self.modules if not self.places(module)]

    def write(self, folder: Path) -> None:
        """Put it beside the graph."""
        document = asdict(self) | {"routers": sorted(self.routers)}
        (folder / MAP_FILE).write_text(json.dumps(document), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> GraphMap:
        """The one beside a graph."""
        document = json.loads((folder / MAP_FILE).read_text(encoding="utf-8"))
        pieces = tuple(Piece(**each) for each in document["pieces"])
        return cls(document["head"], document["modules"], pieces, frozenset(document["routers"]))


def map_graph(source: Path, graph: Path, build: Callable[[Path, Path], None]) -> GraphMap:
    """Find the layers of a Hugging Face folder in the graph that was built from it.

    Args:
        source: the Hugging Face folder.
        graph: folder of the float graph.
        build: what builds the graph of one folder into another.

    Raises:
        InputError: the graph has no matrix for the logits.
    """
    from edgekit_exporters.onnx.graph import routers  # takes onnx_ir

    found, output, modules, doubtful = _compared(source, graph)
    if doubtful:
        log.debug("%s: layers hold the same values, the graph is built again with others", source)
        with tempfile.TemporaryDirectory(prefix="edgekit-marked-") as scratch:
            marked, again = Path(scratch, "marked"), Path(scratch, "graph")
            _mark(source, marked)
            build(marked, again)
            found, output, modules, _ = _compared(marked, again)
    head = next((piece.matrix for piece in found if piece.module == output), None)
    if head is None:
        raise InputError(f"the ONNX graph of {source} has no matrix for logits", OTHER_FORMAT)
    return GraphMap(head, modules, tuple(found), frozenset(routers(graph)))


def _compared(source: Path, graph: Path) -> tuple[list[Piece], str, dict[str, int], bool]:
    """Pieces, the output's module, rows of all modules, and whether layers could be told apart."""
    import torch

    from edgekit_exporters.hf.float_model import load_float
    from edgekit_exporters.onnx.graph import float_matrices  # takes onnx_ir

    model = load_float(source, "auto")
    known: dict[bytes, int] = {}
    modules = {
        name: _ids(module.weight.detach().float().numpy(), known, is_new=True)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    head = model.get_output_embeddings()
    output = next(name for name, module in model.named_modules() if module is head)
    del model
    matrices = ((name, _ids(matrix, known)) for name, matrix in float_matrices(graph))
    found, doubtful = match(modules, matrices)
    return found, output, {name: len(ids) for name, ids in modules.items()}, doubtful


def match(modules: Mapping[str, Ids], matrices: Iterator[tuple[str, Ids]]) -> tuple[list[Piece], bool]:
    """Compare rows, which are known by numbers: the same for equal ones, below 0 for those that no module has.

    Returns:
        Pieces, as long as they can be; and whether some fit several layers equally well, which are left out.
    """
    places: dict[int, list[tuple[str, int]]] = {}
    for name, ids in modules.items():
        for row, number in enumerate(ids.tolist()):
            places.setdefault(number, []).append((name, row))
    found: list[Piece] = []
    doubtful = False
    for matrix, ids in matrices:
        at = 0
        while at < len(ids):
            runs = [(_agreeing(ids[at:], modules[name][row:]), name, row) for name, row in places.get(int(ids[at]), ())]
            longest = max((count for count, _, _ in runs), default=1)
            best = [(name, row) for count, name, row in runs if count == longest]
            doubtful |= len(best) > 1
            if len(best) == 1:
                name, row = best[0]
                found.append(Piece(matrix, name, at, row, longest))
            at += longest
    held = {name: np.zeros(len(ids), np.int64) for name, ids in modules.items()}
    for piece in found:
        held[piece.module][piece.rows] += 1
    return found, doubtful or any((counts > 1).any() for counts in held.values())


def _agreeing(one: Ids, other: Ids) -> int:
    """How many rows are the same from the first on."""
    count = min(len(one), len(other))
    differ = np.flatnonzero(one[:count] != other[:count])
    return int(differ[0]) if len(differ) else count


def _ids(matrix: NDArray[Any], known: dict[bytes, int], *, is_new: bool = False) -> Ids:
    """A number for each row [out, in]; ``is_new`` rows get one, others -1 where none is known."""
    rows = np.ascontiguousarray(matrix, np.float32)
    digests = (hashlib.blake2b(row, digest_size=DIGEST_BYTES).digest() for row in rows)
    found = [known.setdefault(each, len(known)) if is_new else known.get(each, -1) for each in digests]
    return np.array(found, np.int64)


def _mark(source: Path, folder: Path) -> None:
    """A copy of a Hugging Face folder whose weights are random: no two rows of it are equal."""
    import torch
    from safetensors.torch import load_file, save_file

    folder.mkdir()
    chance = torch.Generator().manual_seed(0)
    for path in source.iterdir():
        if path.suffix != ".safetensors":
            if path.is_file():
                shutil.copyfile(path, folder / path.name)
            continue
        tensors = load_file(path)
        for name, tensor in tensors.items():
            if tensor.is_floating_point():
                tensors[name] = torch.randn(tensor.shape, generator=chance).to(tensor.dtype)
        save_file(tensors, folder / path.name, {"format": "pt"})
