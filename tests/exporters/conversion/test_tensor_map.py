"""The map says what the converter did: applied to the parameters, it gives the very tensors of the converted file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from edgekit_exporters.conversion.tensor_map import Piece, TensorMap, tensor_map
from edgekit_exporters.gguf.base import gguf_from_folder
from edgekit_exporters.gguf.lora import lora_pairs
from edgekit_exporters.peft.canonical import LowRank
from edgekit_runtime.errors import InputError

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
# Reordered heads, transposed matrices, stacked experts, matrices of another kind beside attention.
KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 16},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
}


def values(file: Path) -> dict[str, np.ndarray]:
    reader = GGUFReader(file)
    return {each.name: np.array(each.data).reshape(tuple(reversed(each.shape.tolist()))) for each in reader.tensors}


def as_rows(parameter: np.ndarray, piece: Piece) -> np.ndarray:
    """[rows, columns], as a piece counts them."""
    if parameter.ndim < 2:
        return parameter.reshape(-1, 1)
    rows_last = np.moveaxis(parameter, -1, -2) if piece.transposed else parameter
    return rows_last.reshape(-1, rows_last.shape[-1])


@pytest.fixture(scope="module", params=KINDS)
def converted(request: pytest.FixtureRequest, tiny_chat_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp(request.param)
    for path in tiny_chat_base.glob("token*"):
        (folder / path.name).write_bytes(path.read_bytes())
    vocabulary = json.loads((tiny_chat_base / "config.json").read_text())["vocab_size"]
    torch.manual_seed(0)
    config = AutoConfig.for_model(request.param, **{**SIZES, "vocab_size": vocabulary, **KINDS[request.param]})
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    model.save_pretrained(folder)
    gguf_from_folder(folder, folder / "base.gguf", "F32")
    return {name: each.detach().numpy() for name, each in model.named_parameters()}, folder


def test_the_map_applied_to_the_parameters_gives_the_converted_file(converted: Any) -> None:
    parameters, folder = converted
    mapping, stored = tensor_map(folder), values(folder / "base.gguf")
    assert set(mapping.shapes) == set(stored)
    assert not mapping.computed
    for tensor, pieces in mapping.pieces.items():
        flat = stored[tensor].squeeze()
        flat = flat.reshape(-1, 1) if flat.ndim < 2 else flat.reshape(-1, flat.shape[-1])
        filled = np.full_like(flat, np.nan)
        for piece in pieces:
            rows = as_rows(parameters[piece.parameter].squeeze(), piece)
            taken = rows[piece.places] if piece.columns is None else rows[piece.places][:, piece.columns]
            filled[piece.rows] = piece.scale * taken + piece.shift
        np.testing.assert_array_equal(filled, flat, tensor)


def test_every_parameter_stands_in_some_tensor(converted: Any) -> None:
    parameters, folder = converted
    assert all(tensor_map(folder).by_parameter[name] for name in parameters if name != "lm_head.weight")


def test_an_architecture_that_the_converter_does_not_know_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gptj", "architectures": ["GPTJForCausalLM"]}))
    with pytest.raises(InputError, match="can't convert .*GPTJForCausalLM"):
        tensor_map(tmp_path)


def a_map(shapes: dict[str, tuple[int, int]], pieces: list[Piece]) -> TensorMap:
    tensors = {piece.tensor for piece in pieces}
    sizes = {name: sum(len(p.rows) for p in pieces if p.tensor == name) for name in tensors}
    width = next(iter(shapes.values()))[1]
    return TensorMap(
        "made-up",
        {f"{name}.weight": shape for name, shape in shapes.items()},
        {name: (sizes[name], width) for name in tensors},
        {name: tuple(p for p in pieces if p.tensor == name) for name in tensors},
        frozenset(),
    )


@given(st.integers(0, 2**32 - 1), st.booleans(), st.integers(1, 3), st.integers(1, 3))
def test_adapters_follow_rows_that_are_mixed_over_tensors(seed: int, columns: bool, rank_q: int, rank_k: int) -> None:
    """Rows of two modules are spread at random over two tensors, and columns reordered."""
    random = np.random.default_rng(seed)
    shapes = {"q": (6, 8), "k": (4, 8)}
    order = random.permutation(8) if columns else None
    spread = {name: random.permutation(count) for name, (count, _) in shapes.items()}
    places = {"t1": random.permutation(5), "t2": random.permutation(5)}
    cut = {"q": {"t1": spread["q"][:3], "t2": spread["q"][3:]}, "k": {"t1": spread["k"][:2], "t2": spread["k"][2:]}}
    pieces = []
    for tensor in ("t1", "t2"):
        start = 0
        for name in shapes:
            mine = cut[name][tensor]
            rows = places[tensor][start : start + len(mine)]
            start += len(mine)
            pieces.append(Piece(tensor, f"{name}.weight", rows, mine, order, False, 2.0, 0.0))
    torch.manual_seed(seed % 1000)
    layers = {
        name: LowRank(torch.randn(rank, 8), torch.randn(shapes[name][0], rank))
        for name, rank in (("q", rank_q), ("k", rank_k))
    }
    made = lora_pairs(layers, a_map(shapes, pieces))
    assert {b.shape[1] for _, b in made.pairs.values()} == {rank_q + rank_k}
    for piece in pieces:
        a, b = made.pairs[piece.tensor]
        layer = layers[piece.parameter.removesuffix(".weight")]
        expected = 2.0 * (layer.b @ layer.a)[torch.from_numpy(piece.places)]
        expected = expected if order is None else expected[:, torch.from_numpy(order)]
        torch.testing.assert_close((b @ a)[torch.from_numpy(piece.rows)], expected, rtol=1e-4, atol=1e-5)


def test_a_module_that_no_tensor_holds_is_refused_by_name() -> None:
    pieces = [Piece("t", "q.weight", np.arange(2), np.arange(2), None, False, 1.0, 0.0)]
    with pytest.raises(InputError, match="no place for a change of router"):
        lora_pairs({"router": LowRank(torch.ones(1, 4), torch.ones(2, 1))}, a_map({"q": (2, 4)}, pieces))
