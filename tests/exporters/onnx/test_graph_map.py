"""Layers are found in a graph by their values, whatever they are called there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from edgekit.bases.probe.measure import write_tiny
from edgekit_exporters.onnx.graph_map import GraphMap, Ids, Piece, match

pytest.importorskip("onnx_ir", reason="the extra is not installed: pip install 'edgekit[onnx]'")

from edgekit.bases.onnx_probe import write_tokenizer
from edgekit_exporters.onnx.adapter import graph_matrices
from edgekit_exporters.onnx.builder import build_graph, refusal
from edgekit_exporters.peft.canonical import LowRank
from edgekit_runtime.errors import InputError

SIZES = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 320}
LFM2_MOE = {
    "model_type": "lfm2_moe",
    **SIZES,
    "intermediate_size": 96,
    "moe_intermediate_size": 32,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "num_dense_layers": 1,
    "num_hidden_layers": 3,
    "layer_types": ["conv", "full_attention", "conv"],
    "conv_L_cache": 3,
    "norm_topk_prob": True,
    "use_expert_bias": True,
}


def written(config: dict[str, Any], folder: Path) -> Path:
    """A base of random weights, with what the builder reads of a tokenizer."""
    write_tiny(config, folder)
    write_tokenizer(folder)
    return folder


def ids(*numbers: int) -> Ids:
    return np.array(numbers, np.int64)


def matched(modules: dict[str, Ids], **matrices: Ids) -> tuple[list[Piece], bool]:
    return match(modules, iter(matrices.items()))


def test_a_stack_of_layers_is_taken_apart_and_a_layer_that_was_cut_is_put_together() -> None:
    modules = {"q": ids(1, 2, 3), "k": ids(4, 5), "both": ids(6, 7, 8, 9)}
    found, doubtful = matched(modules, stack=ids(1, 2, 3, 4, 5), gate=ids(6, 7), up=ids(8, 9))
    assert found == [
        Piece("stack", "q", 0, 0, 3),
        Piece("stack", "k", 3, 0, 2),
        Piece("gate", "both", 0, 0, 2),
        Piece("up", "both", 0, 2, 2),
    ]
    assert not doubtful
    places = GraphMap("head", {name: len(rows) for name, rows in modules.items()}, tuple(found))
    assert [piece.matrix for piece in places.places("both")] == ["gate", "up"]


def test_rows_that_are_nobodys_belong_to_nobody_and_half_a_layer_has_no_place() -> None:
    found, doubtful = matched({"q": ids(1, 2, 3), "k": ids(4)}, stack=ids(-1, 4, 1, 2, -1))
    assert found == [Piece("stack", "k", 1, 0, 1), Piece("stack", "q", 2, 0, 2)]
    assert not doubtful
    places = GraphMap("head", {"q": 3, "k": 1}, tuple(found))
    assert places.places("q") == []
    assert places.missing == ["q"]


def test_equal_rows_within_a_layer_leave_no_doubt() -> None:
    found, doubtful = matched({"q": ids(7, 7, 7, 1, 7), "k": ids(7, 2)}, stack=ids(7, 7, 7, 1, 7, 7, 2))
    assert found == [Piece("stack", "q", 0, 0, 5), Piece("stack", "k", 5, 0, 2)]
    assert not doubtful


@pytest.mark.parametrize(
    "matrices",
    [{"one": ids(7, 7), "two": ids(7, 7)}, {"stack": ids(7, 7, 7, 7)}, {"one": ids(7, 7)}],
    ids=["two matrices", "a stack", "one of them is nowhere"],
)
def test_equal_layers_are_told_to_be_so(matrices: dict[str, Ids]) -> None:
    found, doubtful = matched({"q": ids(7, 7), "k": ids(7, 7)}, **matrices)
    assert doubtful
    assert found == []


def test_a_layer_that_two_matrices_hold_is_told_to_be_so() -> None:
    assert matched({"q": ids(1, 2)}, one=ids(1, 2), two=ids(1, 2))[1]


def pair(inputs: int, outputs: int, rank: int) -> LowRank:
    return LowRank(torch.randn(rank, inputs), torch.randn(outputs, rank))


def change(matrices: dict[str, np.ndarray], layer: str) -> torch.Tensor:
    """What is added to a matrix [out, in]."""
    product = torch.from_numpy(matrices[f"{layer}.lora_A"] @ matrices[f"{layer}.lora_B"])
    return product.T


def test_pairs_change_the_rows_that_they_are_for() -> None:
    modules = {"q": 4, "k": 2, "v": 2, "gate_up": 6}
    pieces = (
        Piece("stack", "q", 0, 0, 4),
        Piece("stack", "k", 4, 0, 2),
        Piece("stack", "v", 6, 0, 2),
        Piece("gate", "gate_up", 0, 0, 3),
        Piece("up", "gate_up", 0, 3, 3),
    )
    pairs = {"q": pair(5, 4, 2), "v": pair(5, 2, 3), "gate_up": pair(5, 6, 2)}
    layers = {"stack": (5, 8), "gate": (5, 3), "up": (5, 3)}
    made = graph_matrices(pairs, layers, GraphMap("head", modules, pieces))
    deltas = {name: each.b @ each.a for name, each in pairs.items()}
    expected = torch.cat([deltas["q"], torch.zeros(2, 5), deltas["v"]])
    torch.testing.assert_close(change(made, "stack"), expected)
    torch.testing.assert_close(torch.cat([change(made, "gate"), change(made, "up")]), deltas["gate_up"])
    assert made["stack.lora_A"].shape == (5, 6)  # two parts, each as wide as the widest


def test_a_pair_without_a_place_is_refused_by_the_name_of_its_layer() -> None:
    places = GraphMap("head", {"q": 4, "embed": 2}, (Piece("stack", "q", 0, 0, 3), Piece("head", "embed", 0, 0, 2)))
    for name in ("q", "embed", "model.layers.0.mlp.other"):
        with pytest.raises(InputError, match=f"no place for a change of {name}"):
            graph_matrices({name: pair(5, 4, 2)}, {"stack": (5, 8)}, places)


def test_names_that_nobody_expects_are_found_and_layers_of_zeros_and_twins_told_apart(tmp_path: Path) -> None:
    folder = written(LFM2_MOE, tmp_path / "base")
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if name.endswith("conv.out_proj.weight"):
            tensor.zero_()
    dense = "model.layers.0.feed_forward"
    tensors[f"{dense}.w3.weight"] = tensors[f"{dense}.w1.weight"].clone()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    build_graph(folder, tmp_path / "graph")
    places = GraphMap.read(tmp_path / "graph")
    assert places.missing == []
    assert places.head == "lm_head"
    for module, layer, count in (
        (f"{dense}.w1", "model.layers.0.mlp.gate_proj", 96),
        (f"{dense}.w3", "model.layers.0.mlp.up_proj", 96),
        (f"{dense}.w2", "model.layers.0.mlp.down_proj", 64),
        *((f"model.layers.{at}.conv.out_proj", f"model.layers.{at}.conv.out_proj", 64) for at in (0, 2)),
    ):
        assert places.places(module) == [Piece(layer, module, 0, 0, count)]
    stack = [piece.module.rpartition(".")[2] for piece in places.pieces if piece.matrix.endswith("qkv_proj")]
    assert stack == ["q_proj", "k_proj", "v_proj"]
    assert places.routers == {f"model.layers.{at}.moe.router" for at in (1, 2)}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("NotImplementedError: The /x model is not currently supported.", "doesn't know OtherForCausalLM"),
        ("KeyError: 'rope_type'", "can't build OtherForCausalLM (KeyError: 'rope_type')"),
        ("", "can't build OtherForCausalLM (it said nothing)"),
    ],
    ids=["unknown", "fails", "silent"],
)
def test_what_the_builder_cannot_do_is_told_with_the_architecture(said: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text(json.dumps({"architectures": ["OtherForCausalLM"]}))
    assert refusal(tmp_path / "base", f"Traceback\n  more\n{said}\n" if said else said) == words
