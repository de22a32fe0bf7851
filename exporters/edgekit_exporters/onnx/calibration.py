"""Blocks chosen for the inputs that layers see, while the base itself writes text.

No data is asked for, and the same base always gives the same blocks, whatever project it is exported for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgekit_exporters.onnx.blocks import Blocks
from edgekit_exporters.onnx.gptq import Inputs, compensated
from edgekit_exporters.onnx.graph_map import GraphMap
from edgekit_runtime.machine import describe

SEED = 0
BFLOAT16_UNITS = {"avx512_bf16", "bf16"}  # twice as fast as float32 there, and near enough
TEXTS, TOKENS = 64, 40


class Calibration:
    """What the layers of a model see while it writes.

    Attributes:
        inputs: of each linear layer, by the model's names [texts * tokens, in]; one tensor where layers see the same.
    """

    def __init__(self, folder: Path) -> None:
        """Let the model of a Hugging Face folder write."""
        from transformers import AutoModelForCausalLM

        dtype = torch.float32 if BFLOAT16_UNITS.isdisjoint(describe()["flags"]) else torch.bfloat16
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, trust_remote_code=False, use_safetensors=True, dtype=dtype, attn_implementation="eager"
        ).eval()
        # A processor is left to what runs beside: threads that wait for one another lose more than one of them adds.
        with torch.inference_mode(), _threads(max(1, torch.get_num_threads() - 1)):
            self.inputs = _seen_while_writing(model)

    def blocks(self, weights: Mapping[str, Any], places: GraphMap, bits: int) -> dict[str, Blocks]:
        """Blocks for the layers of a graph, each for what it sees.

        Args:
            weights: the matrices [out, in], float32 arrays, by the graph's names; those that see nothing are left out.
            places: which of them are which layers of the model.
            bits: 4 or 8.
        """
        sharing: dict[int, tuple[Tensor, dict[str, Any]]] = {}
        for name, rows in self.inputs.items():
            for piece in places.places(name):
                if piece.matrix in weights:
                    sharing.setdefault(id(rows), (rows, {}))[1][piece.matrix] = weights[piece.matrix]
        workers = torch.get_num_threads()
        with _threads(1), ThreadPoolExecutor(workers) as pool:  # a thread for each layer's whole work
            found = pool.map(lambda each: _fitted(each[0], each[1], bits), sharing.values())
            return {name: blocks for each in found for name, blocks in each.items()}


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """How many threads an operation of torch takes meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _fitted(rows: Tensor, weights: Mapping[str, Any], bits: int) -> dict[str, Blocks]:
    """Blocks of matrices that see the same: their outputs know nothing of each other, so they are one matrix here."""
    with torch.inference_mode():
        matrix = torch.from_numpy(np.concatenate(list(weights.values())))
        whole = compensated(matrix, Inputs.seen(rows), bits)
        parts = [len(weight) for weight in weights.values()]
        pieces = zip(weights, *(each.split(parts) for each in (whole.codes, whole.scales, whole.zeros)), strict=True)
        return {name: Blocks(codes, scales, zeros, bits) for name, codes, scales, zeros in pieces}


def _seen_while_writing(model: Any) -> dict[str, Tensor]:
    """Let it write texts, each from another first token, and keep what its linear layers see."""
    pieces: dict[str, list[Tensor]] = {}
    last: Tensor | None = None
    seen: list[Tensor] = []

    def see(name: str, given: Tensor) -> None:
        nonlocal last, seen
        if given is not last:
            last, seen = given, pieces.setdefault(name, [])
            seen.append(given.flatten(0, -2))
        pieces[name] = seen

    def hook(name: str) -> Any:
        return lambda _, inputs: see(name, inputs[0])

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and module is not model.get_output_embeddings():
            module.register_forward_pre_hook(hook(name))
    _write(model)
    whole = {id(each): torch.cat(each) for each in pieces.values()}
    return {name: whole[id(each)] for name, each in pieces.items()}


def _write(model: Any) -> None:
    """Draw ``TEXTS`` texts of ``TOKENS`` tokens from the model, by the whole of its distribution."""
    chance = torch.Generator().manual_seed(SEED)
    tokens = torch.randint(0, model.config.vocab_size, (TEXTS, 1), generator=chance)
    past = None
    for _ in range(TOKENS):
        found = model(input_ids=tokens, past_key_values=past, use_cache=True)
        past = found.past_key_values
        heights = found.logits[:, -1].float().softmax(-1).cumsum(-1)
        tokens = torch.searchsorted(heights, heights[:, -1:] * torch.rand(TEXTS, 1, generator=chance))
