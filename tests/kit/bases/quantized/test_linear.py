"""Packed layers compute and differentiate like dense ones, and can't be changed."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from edgekit.bases.quantized import linear
from edgekit.bases.quantized.blocks import QuantizedBlocks
from edgekit.bases.quantized.linear import QuantizedEmbedding, QuantizedLinear
from edgekit_runtime.errors import UsageError

from .conftest import random_blocks

TYPES = ("Q4_0", "Q4_K", "Q8_0", "IQ4_NL", "F16")


def packed_and_dense(type_name: str, rows: int = 24, cols: int = 256) -> tuple[QuantizedLinear, nn.Linear]:
    blocks = QuantizedBlocks(torch.from_numpy(random_blocks(type_name, rows, cols).copy()), type_name)
    bias = torch.linspace(-1, 1, rows)
    dense = nn.Linear(cols, rows)
    dense.weight.data, dense.bias.data = blocks.dequantize(torch.float32), bias.clone()
    return QuantizedLinear(blocks, bias, torch.float32), dense.requires_grad_(False)


@pytest.mark.parametrize("type_name", TYPES)
@pytest.mark.parametrize("max_floats", [1 << 22, 2048])
def test_forward_and_backward_equal_a_dense_layer(
    type_name: str, max_floats: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "MAX_FLOATS", max_floats)
    packed, dense = packed_and_dense(type_name)
    inputs = [torch.randn(2, 5, 256, requires_grad=True)]
    inputs.append(inputs[0].detach().clone().requires_grad_())
    weight = torch.randn(2, 5, 24)
    outputs = [layer(x) for layer, x in zip((packed, dense), inputs, strict=True)]
    torch.testing.assert_close(*outputs)
    for output in outputs:
        (output * weight).sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)


@pytest.mark.parametrize("max_floats", [1 << 22, 2048])
def test_bfloat16_is_as_close_to_float32_as_a_dense_layer(max_floats: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "MAX_FLOATS", max_floats)
    packed, dense = packed_and_dense("Q4_0", rows=64)
    x = torch.randn(9, 256, dtype=torch.bfloat16, requires_grad=True)
    y = packed(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), dense(x.float()), rtol=0.02, atol=0.05)
    grad = torch.randn_like(y)
    y.backward(grad)
    assert x.grad is not None
    assert x.grad.dtype == torch.bfloat16
    torch.testing.assert_close(x.grad.float(), grad.float() @ dense.weight, rtol=0.02, atol=0.05)


def test_autocast_decides_the_dtype_and_the_gradient_keeps_its_own() -> None:
    packed, _ = packed_and_dense("Q4_0")
    x = torch.randn(3, 256, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = packed(x)
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.float32


def test_the_graph_keeps_no_float_weight() -> None:
    packed, _ = packed_and_dense("Q4_0")
    saved: list[torch.Tensor] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        packed(torch.randn(3, 256, requires_grad=True))
    assert not [tensor for tensor in saved if tensor.numel() >= 24 * 256]


def test_nothing_is_trainable_but_a_bias_on_demand() -> None:
    packed, _ = packed_and_dense("Q4_0")
    assert not [name for name, parameter in packed.named_parameters() if parameter.requires_grad]
    assert packed.bias is not None
    packed.bias.requires_grad_()
    packed(torch.randn(3, 256)).sum().backward()
    torch.testing.assert_close(packed.bias.grad, torch.full((24,), 3.0))


def test_weight_is_the_dense_matrix_to_look_at() -> None:
    packed, dense = packed_and_dense("Q4_0")
    assert (packed.weight.shape, packed.weight.dtype, packed.weight.device.type) == ((24, 256), torch.float32, "cpu")
    assert torch.equal(packed.weight + 0, dense.weight)
    torch.testing.assert_close(torch.linalg.norm(packed.weight, dim=1), torch.linalg.norm(dense.weight, dim=1))
    assert packed.to(torch.bfloat16).weight.dtype == torch.bfloat16


@pytest.mark.parametrize(
    "change",
    [
        lambda weight: weight.add_(1),
        lambda weight: weight.data.add_(1),
        lambda weight: setattr(weight, "data", torch.zeros(24, 256)),
        lambda weight: torch.nn.init.zeros_(weight),
    ],
)
def test_changing_the_weight_is_refused(change: object) -> None:
    packed, _ = packed_and_dense("Q4_0")
    with pytest.raises(UsageError, match=r"can't be changed.*float model"):
        change(packed.weight)  # type: ignore[operator]
    with pytest.raises(UsageError, match="can't be changed"):
        packed.weight = torch.zeros(24, 256)


def test_an_embedding_looks_rows_up() -> None:
    blocks = QuantizedBlocks(torch.from_numpy(random_blocks("Q8_0", 50, 64).copy()), "Q8_0")
    ids = torch.tensor([[3, 49], [0, 3]])
    expected = blocks.dequantize(torch.float32)[ids]
    assert torch.equal(QuantizedEmbedding(blocks, torch.float32)(ids), expected)
    assert torch.equal(QuantizedEmbedding(blocks, torch.float32, scale=8.0)(ids), expected * 8)
    assert QuantizedEmbedding(blocks, torch.bfloat16)(ids).dtype == torch.bfloat16


def test_blocks_that_two_layers_share_are_kept_once_also_after_a_move() -> None:
    blocks = QuantizedBlocks(torch.from_numpy(random_blocks("Q8_0", 50, 64).copy()), "Q8_0")
    model = nn.ModuleDict(
        {"embedding": QuantizedEmbedding(blocks, torch.float32), "output": QuantizedLinear(blocks, None, torch.float32)}
    )
    model._apply(lambda tensor: tensor.clone())  # what .to(another device) does
    layers = [copy.deepcopy(model)[name] for name in ("embedding", "output")]
    assert model["embedding"].blocks is model["output"].blocks
    assert all(isinstance(layer.blocks, QuantizedBlocks) for layer in layers)
    assert sum(plane.nbytes for plane in set(model.buffers())) == blocks.nbytes()
