"""Adapters as inputs of a builder's graph.

The float branch ``x A B`` is added to what each linear layer of the decoder computes.  A [in, rank] and B [rank, out]
are inputs of the graph whose rank is free, and have a default of rank 0: without an adapter the graph is the base.
Their names are the layer's, with ``.lora_A`` and ``.lora_B``.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgekit_exporters.onnx.graph import constant, graph_input, matrix_of, matrix_shape, products
from edgekit_runtime.formats.onnx_base import FUSED, LORA_A, LORA_B, MASK, MASK_FUSED, TILE


def add_adapter_inputs(model: ir.Model, layers: Container[str]) -> None:
    """Give each of the layers its float branch, of one adapter for all rows of a batch.

    Args:
        model: a builder's graph, weights still float.
        layers: names of matrices.
    """
    graph = model.graph
    for node in products(model, layers):
        branch = _Branch(graph, node)
        a = graph_input(graph, branch.layer + LORA_A, [branch.inputs, None], np.zeros((branch.inputs, 0), np.float32))
        shrunk = branch.add("MatMul", [branch.x, a], "lora_A/MatMul")
        branch.close(branch.add("MatMul", [shrunk, branch.b], "lora_B/MatMul"))


def add_mixed_adapter_inputs(model: ir.Model, layers: Container[str]) -> None:
    """Give each of the layers its float branch, of several adapters side by side along the rank.

    A is [tiles, in, 16], the ranks in tiles of 16, and what it gives is multiplied by a mask [tiles, rows, 1], an
    input too, that leaves each row the ranks of its own adapter.  A tile is a matrix product of its own, so that it is
    summed in the same order whatever stands beside it; and zeros that the mask makes change no sum.

    Args:
        model: a builder's graph, weights still float.  A batch of it is one row, or one position of several.
        layers: names of matrices.
    """
    graph = model.graph
    batch = _batch_shape(graph)
    masks: dict[str, ir.Value] = {}
    flat: dict[ir.Value, ir.Value] = {}
    for node in products(model, layers):
        branch = _Branch(graph, node)
        a = graph_input(
            graph, branch.layer + LORA_A, [None, branch.inputs, TILE], np.zeros((0, branch.inputs, TILE), np.float32)
        )
        name = MASK_FUSED if branch.layer.endswith(f".{FUSED}") else MASK
        if name not in masks:
            masks[name] = graph_input(graph, name, [None, None, 1], np.ones((1, 1, 1), np.float32))
        if branch.x not in flat:
            flat[branch.x] = branch.add("Flatten", [branch.x], "lora_rows/Flatten", axis=2)
        tiles = branch.add("MatMul", [flat[branch.x], a], "lora_A/MatMul")
        own = branch.add("Mul", [tiles, masks[name]], "lora_mask/Mul")
        rows = branch.add("Transpose", [own], "lora_tiles/Transpose", perm=[1, 0, 2])
        shrunk = branch.add("Flatten", [rows], "lora_tiles/Flatten", axis=1)
        grown = branch.add("MatMul", [shrunk, branch.b], "lora_B/MatMul")
        branch.close(branch.add("Reshape", [grown, batch], "lora_rows/Reshape"))


class _Branch:
    """Nodes that are put behind a layer's matrix product, and at last are added to what it gives.

    Attributes:
        layer: its name.
        inputs: how many numbers it takes.
        x: what it takes [batch, positions, in].
        b: the input B of the graph [rank, out].
    """

    def __init__(self, graph: ir.Graph, node: ir.Node) -> None:
        self.layer = str(matrix_of(node))
        x, weight = node.inputs
        assert x is not None
        assert weight is not None
        self.x = x
        self.inputs, outputs = matrix_shape(weight)
        self.b = graph_input(graph, self.layer + LORA_B, [None, outputs], np.zeros((0, outputs), np.float32))
        self._graph, self._last, self._plain = graph, node, node.outputs[0]
        self._path = "/" + self.layer.replace("model.", "model/").replace(".", "/").replace("layers/", "layers.")

    def add(self, kind: str, inputs: Sequence[ir.Value], name: str, **attributes: Any) -> ir.Value:
        """One more node; what it gives."""
        node = ir.node(kind, inputs, attributes, name=f"{self._path}/{name}")
        node.outputs[0].name, node.outputs[0].type = f"{node.name}/output_0", self._plain.type
        self._graph.insert_after(self._last, node)
        self._last = node
        return node.outputs[0]

    def close(self, delta: ir.Value) -> None:
        """Let whoever took what the layer gives take the sum."""
        uses = list(self._plain.uses())
        total = self.add("Add", [self._plain, delta], "lora/Add")
        for use in uses:
            use.node.replace_input_with(use.idx, total)


def _batch_shape(graph: ir.Graph) -> ir.Value:
    """[rows, positions, -1]: the shape that a layer's outputs have, computed once."""
    ids = next(value for value in graph.inputs if value.name == "input_ids")
    rest = constant(graph, ir.tensor(np.array([-1], np.int64), name="lora_rows.rest"))
    shape = ir.node("Shape", [ids], name="/model/lora_rows/Shape")
    whole = ir.node("Concat", [shape.outputs[0], rest], {"axis": 0}, name="/model/lora_rows/Concat")
    for node in (shape, whole):
        node.outputs[0].name, node.outputs[0].type = f"{node.name}/output_0", ir.TensorType(ir.DataType.INT64)
    graph.insert_before(graph[0], [shape, whole])
    return whole.outputs[0]
