"""Surgery on a builder's graph: weights in blocks, all weights in one file beside the graph, logits as asked for.

The input ``logits_from`` (default 0) is the first position whose logits are wanted, counted from the end when negative.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgekit_exporters.onnx.blocks import BLOCK, Blocks
from edgekit_runtime.formats.onnx_base import LOGITS_FROM, MODEL_FILE

WEIGHT_SUFFIXES = (".weight", ".MatMul")  # what stands behind the layer in a matrix' name, last first
CONTRIB = "com.microsoft"
ROUTER_INPUT = 1  # of the operator MoE: a number for each expert
ROUTER_STEPS = ("Add", "Cast", "Exp", "Neg", "Reciprocal", "Reshape", "Sigmoid", "Softmax")  # between it and a router
INT8_COMPUTE = 4  # MatMulNBits' accuracy_level: activations are rounded to 8 bits in blocks
ALIGNMENT = 64
END = np.iinfo(np.int64).max

Array = NDArray[Any]


def products(model: ir.Model, matrices: Container[str]) -> list[ir.Node]:
    """The products with these matrices, in order."""
    return [node for node in model.graph if matrix_of(node) in matrices]


def limit_logits(model: ir.Model, matrix: str) -> None:
    """Compute logits from the position ``logits_from`` on only.

    Args:
        model: a builder's graph.
        matrix: whose product the logits are, or are made of.
    """
    graph = model.graph
    (head,) = products(model, (matrix,))
    hidden = head.inputs[0]
    start = graph_input(graph, LOGITS_FROM, [1], np.zeros(1, np.int64))
    constants = [
        constant(graph, ir.tensor(np.array([value], np.int64), name=f"{LOGITS_FROM}.{kind}"))
        for kind, value in (("end", END), ("axis", 1))
    ]
    cut = ir.node("Slice", [hidden, start, *constants], name="/lm_head/Slice")
    cut.outputs[0].name = "/lm_head/Slice/output_0"
    head.replace_input_with(0, cut.outputs[0])
    graph.insert_before(head, cut)
    for value in _made_of(head.outputs[0]):
        if value.shape is not None and len(value.shape) == 3:
            value.shape = ir.Shape(["batch_size", "logits_length", value.shape[2]])


def _made_of(value: ir.Value) -> Iterator[ir.Value]:
    """A value, and what is computed from it: scales and caps of logits."""
    yield value
    for use in value.uses():
        for made in use.node.outputs:
            yield from _made_of(made)


def require_inputs(model: ir.Model) -> None:
    """Take the defaults from all inputs: onnxruntime-web takes no values for inputs that have one.

    The bare base is then an A and B of rank 0 for each layer.
    """
    for value in model.graph.inputs:
        model.graph.initializers.pop(str(value.name), None)
        value.const_value = None


def fix_head_size(model: ir.Model, size: int) -> None:
    """Write the head size into the shapes of the KV cache, where builders leave a symbol."""
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.shape is not None and len(value.shape) == 4:
            value.shape = ir.Shape([*value.shape[:3], size])


def layer_shapes(model: ir.Model, layers: Container[str]) -> dict[str, tuple[int, int]]:
    """[in, out] of the layers that take adapters."""
    shapes = {}
    for node in products(model, layers):
        weight = node.inputs[1]
        assert weight is not None
        shapes[str(matrix_of(node))] = matrix_shape(weight)
    return shapes


@dataclass(frozen=True)
class StoredBlocks:
    """Where the blocks of a matrix are: ``zeros`` None for those in the middle, which is MatMulNBits' default."""

    codes: ir.ExternalTensor
    scales: ir.ExternalTensor
    zeros: ir.ExternalTensor | None
    bits: int
    shape: tuple[int, int]


Stored = StoredBlocks | ir.TensorProtocol


def store_weights(
    model: ir.Model, blocks: Mapping[str, Blocks], data: DataFile, *, half: bool = False, larger_than: int = 1024
) -> dict[str, Stored]:
    """Write the weights of a builder's graph to ``data``; small ones are kept for the graph itself.

    Args:
        model: a builder's graph, weights still float.
        blocks: what to write in the place of float weights, by :func:`weights`' names.
        data: the file.
        half: float16 for the matrices that have no blocks; the engine widens them once, when it loads.
        larger_than: bytes of what goes to the file.
    """
    stored: dict[str, Stored] = {}
    halved = {name for name, _ in weights(model)} if half else ()
    for name, value in model.graph.initializers.items():
        found = blocks.get(matrix_name(name))
        if found is not None:
            stored[name] = _store_blocks(name.removesuffix(".weight"), found, data)
            continue
        assert value.const_value is not None
        array = value.const_value.numpy()
        if half and matrix_name(name) in halved:
            stored[name] = data.add(array.astype(np.float16), f"{name}.fp16")
        else:
            stored[name] = data.add(array, name) if array.nbytes > larger_than else ir.tensor(array, name=name)
    return stored


def use_weights(model: ir.Model, stored: Mapping[str, Stored]) -> None:
    """Let a graph (with or without adapter inputs) take its weights from where they are stored."""
    graph = model.graph
    for name, place in stored.items():
        value = graph.initializers[name]
        if isinstance(place, StoredBlocks):
            _use_blocks(graph, value, place)
            del graph.initializers[name]
        elif place.dtype != value.dtype:
            del graph.initializers[name]
            ir.convenience.replace_all_uses_with(value, _widened(graph, name, place))
        else:
            value.const_value = place
    model.opset_imports.setdefault(CONTRIB, 1)


def weights(model: ir.Model) -> Iterator[tuple[str, Array]]:
    """Float matrices [out, in] that something is multiplied with, by name without suffix."""
    multiplied = {matrix_of(node) for node in model.graph}
    for name, value in model.graph.initializers.items():
        if matrix_name(name) in multiplied and value.const_value is not None:
            yield matrix_name(name), value.const_value.numpy().T


def float_matrices(folder: Path) -> Iterator[tuple[str, Array]]:
    """Those of the graph in a folder."""
    yield from weights(ir.load(folder / MODEL_FILE))


@dataclass
class DataFile:
    """Weights one after another in one file.  The same bytes may stand for several tensors."""

    path: Path

    def __post_init__(self) -> None:
        """Start it empty."""
        self.path.write_bytes(b"")
        self._end = 0

    def add(self, array: Array, name: str) -> ir.ExternalTensor:
        """Append an array."""
        data = np.ascontiguousarray(array)
        start = -(-self._end // ALIGNMENT) * ALIGNMENT
        with self.path.open("ab") as stream:
            stream.write(b"\0" * (start - self._end))
            stream.write(data.tobytes())
        self._end = start + data.nbytes
        kind = ir.DataType.from_numpy(data.dtype)
        where = self.path.parent
        return ir.ExternalTensor(
            self.path.name, start, data.nbytes, kind, shape=ir.Shape(data.shape), name=name, base_dir=where
        )

    @staticmethod
    def again(tensor: ir.ExternalTensor, name: str, shape: tuple[int, ...]) -> ir.ExternalTensor:
        """The bytes of ``tensor`` under another name and shape."""
        return ir.ExternalTensor(
            tensor.location,
            tensor.offset,
            tensor.length,
            tensor.dtype,
            shape=ir.Shape(shape),
            name=name,
            base_dir=tensor.base_dir,
        )


def constant(graph: ir.Graph, tensor: ir.TensorProtocol) -> ir.Value:
    """A constant of the graph under the tensor's name."""
    value = ir.Value(
        name=tensor.name, shape=ir.Shape(tensor.shape.numpy()), type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    graph.register_initializer(value)
    return value


def graph_input(graph: ir.Graph, name: str, shape: list[int | None], default: Array) -> ir.Value:
    """An input that may be left out."""
    symbols = [f"{name}.{axis}" if size is None else size for axis, size in enumerate(shape)]
    kind = ir.TensorType(ir.DataType.from_numpy(default.dtype))
    value = ir.Value(name=name, shape=ir.Shape(symbols), type=kind, const_value=ir.tensor(default, name=name))
    graph.inputs.append(value)
    graph.register_initializer(value)
    return value


def matrix_shape(value: ir.Value) -> tuple[int, int]:
    """Of a constant matrix."""
    assert value.const_value is not None
    rows, columns = value.const_value.shape.numpy()
    return int(rows), int(columns)


def matrix_of(node: ir.Node) -> str | None:
    """The constant matrix that a node multiplies with; None for other nodes."""
    if node.op_type != "MatMul" or len(node.inputs) < 2:
        return None
    weight = node.inputs[1]
    if weight is None or weight.const_value is None or len(weight.const_value.shape) != 2:
        return None
    return matrix_name(str(weight.name))


def routers(folder: Path) -> set[str]:
    """Matrices of the graph in a folder whose products choose experts: a rounded one would choose others."""
    found = set()
    for node in ir.load(folder / MODEL_FILE).graph:
        name = matrix_of(node)
        if name is not None and _chooses(node.outputs[0]):
            found.add(name)
    return found


def _chooses(value: ir.Value) -> bool:
    """Whether a product goes into a choice of experts before anything mixes it with others."""
    for use in value.uses():
        if use.node.op_type == "TopK" or (use.node.op_type == "MoE" and use.idx == ROUTER_INPUT):
            return True
        if use.node.op_type in ROUTER_STEPS and any(_chooses(made) for made in use.node.outputs):
            return True
    return False


def matrix_name(constant_name: str) -> str:
    """Of a constant without suffix: what its adapter inputs are named after."""
    for suffix in WEIGHT_SUFFIXES:
        constant_name = constant_name.removesuffix(suffix)
    return constant_name


def _store_blocks(name: str, blocks: Blocks, data: DataFile) -> StoredBlocks:
    middle = bool((blocks.zeros == 2 ** (blocks.bits - 1)).all())
    return StoredBlocks(
        codes=data.add(blocks.packed_codes().numpy(), f"{name}.codes"),
        scales=data.add(blocks.scales.numpy().astype(np.float16), f"{name}.scales.fp16"),
        zeros=None if middle else data.add(blocks.packed_zeros().numpy(), f"{name}.zeros"),
        bits=blocks.bits,
        shape=(blocks.codes.shape[0], blocks.codes.shape[1]),
    )


def _use_blocks(graph: ir.Graph, weight: ir.Value, stored: StoredBlocks) -> None:
    """MatMulNBits for MatMul; GatherBlockQuantized over the same bytes for a tied embedding."""
    name = str(weight.name).removesuffix(".weight")
    scales = _widened(graph, f"{name}.scales", stored.scales)
    zeros = [] if stored.zeros is None else [constant(graph, stored.zeros)]
    rows, columns = stored.shape
    for use in list(weight.uses()):
        if use.node.op_type == "Transpose":
            _use_for_embedding(graph, use.node, stored, [scales, *zeros])
            continue
        product = ir.node(
            "MatMulNBits",
            [use.node.inputs[0], constant(graph, stored.codes), scales, *zeros],
            {"K": columns, "N": rows, "bits": stored.bits, "block_size": BLOCK, "accuracy_level": INT8_COMPUTE},
            domain=CONTRIB,
            name=f"{use.node.name}NBits",
        )
        _take_place(graph, use.node, product)


def _use_for_embedding(graph: ir.Graph, transpose: ir.Node, stored: StoredBlocks, rest: list[ir.Value]) -> None:
    gather = next(use.node for use in transpose.outputs[0].uses())
    rows, columns = stored.shape
    codes = DataFile.again(stored.codes, "model.embed_tokens.codes", (rows, columns * stored.bits // 8))
    lookup = ir.node(
        "GatherBlockQuantized",
        [constant(graph, codes), gather.inputs[1], *rest],
        {"bits": stored.bits, "block_size": BLOCK, "gather_axis": 0, "quantize_axis": 1},
        domain=CONTRIB,
        name="/model/embed_tokens/GatherBlockQuantized",
    )
    _take_place(graph, gather, lookup)
    graph.remove(transpose, safe=True)


def _widened(graph: ir.Graph, name: str, half: ir.TensorProtocol) -> ir.Value:
    """A float32 value from a float16 constant, which an engine computes once, when it loads."""
    cast = ir.node("Cast", [constant(graph, half)], {"to": ir.DataType.FLOAT}, name=f"/widen/{name}")
    wide = cast.outputs[0]
    wide.name, wide.type, wide.shape = name, ir.TensorType(ir.DataType.FLOAT), ir.Shape(half.shape.numpy())
    graph.insert_before(graph[0], cast)
    return wide


def _take_place(graph: ir.Graph, old: ir.Node, new: ir.Node) -> None:
    ir.convenience.replace_nodes_and_values(graph, old, [old], [new], old.outputs, new.outputs)
