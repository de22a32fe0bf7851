"""A LoRA GGUF, as llama.cpp's converter writes it and Ollama's ADAPTER names it, turned back into PEFT's terms."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

from edgekit_exporters.base import Base
from edgekit_exporters.conversion.tensor_map import Piece, tensor_map
from edgekit_exporters.peft.base_modules import base_modules
from edgekit_exporters.peft.names import PREFIX
from edgekit_exporters.peft.of_parameters import around_parameter
from edgekit_exporters.peft.settings import INVOCATION
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats import adapter as keys
from edgekit_runtime.formats.gguf import GgufFile, TensorInfo, read_gguf

Pair = tuple[torch.Tensor, torch.Tensor]


def read_lora_gguf(path: Path, base: Base) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Read a LoRA GGUF.

    Args:
        path: the file.
        base: that it is for.

    Returns:
        What an adapter_config.json would say, and the tensors by PEFT's names, float32.

    Raises:
        InputError: no sound LoRA GGUF, or one of another base.
    """
    facts = keys.AdapterFacts.read(path)
    file = read_gguf(path)
    if facts.family is not None and facts.family != base.family:
        raise InputError(
            f"{path} was trained for the base {facts.family}, not for {base.family}", "name the base that it is for"
        )
    paired = {target + suffix for target in facts.pairs for suffix in (keys.SUFFIX_A, keys.SUFFIX_B)}
    for name in file.tensors:
        if name not in paired:
            raise InputError(f"{path}: {name} is no half of a LoRA pair", "export it again, with pairs alone")
    mapping = tensor_map(base.folder)
    if facts.architecture != mapping.architecture:
        raise InputError(
            f"{path} is of the architecture {facts.architecture or 'nameless'}, the base {mapping.architecture}",
            "use it with its own base",
        )
    pairs: dict[str, list[Pair]] = {}
    embeddings, experts = set(), set()
    for target in facts.pairs:
        if not mapping.pieces.get(target):
            raise InputError(f"{path} changes {target}, which {base.name} lacks", "use it with its own base")
        a, b = (_values(file, file.tensors[target + suffix]) for suffix in (keys.SUFFIX_A, keys.SUFFIX_B))
        for piece in mapping.pieces[target]:
            module = piece.parameter.removesuffix(".weight")
            if a.dim() == 3:
                experts.add(module)
                pairs.setdefault(module, []).append(_of_experts(piece, a, b, mapping.parameters[module]))
                continue
            pairs.setdefault(module, []).append(_of_module(piece, a, b, embedding=target == keys.EMBEDDING))
            if target == keys.EMBEDDING:
                embeddings.add(module)
    tensors: dict[str, torch.Tensor] = {}
    for module, parts in pairs.items():
        if module in experts:
            tensors |= around_parameter(module, *_together(parts), experts, base_modules(base).experts)
            continue
        a, b = _together(parts)
        names = ("lora_embedding_A", "lora_embedding_B") if module in embeddings else ("lora_A.weight", "lora_B.weight")
        tensors |= dict(zip((f"{PREFIX}{module}.{name}" for name in names), (a, b), strict=True))
    ranks = {module: sum(a.shape[-2] for a, _ in _unlike(parts)) for module, parts in pairs.items()}
    return _config(facts, ranks, experts), tensors


def _of_module(piece: Piece, a: torch.Tensor, b: torch.Tensor, *, embedding: bool) -> Pair:
    """What a tensor's pair says of one module: A with its columns, B with its rows (others are zero) in its order."""
    rows, places = torch.from_numpy(piece.rows), torch.from_numpy(piece.places)
    if embedding:
        if len(rows) != a.shape[0]:
            return a.T, b  # of another shape: it is refused later
        own = torch.zeros_like(a)
        own[places] = a[rows] / torch.from_numpy(piece.factors)
        return own.T, b
    if len(rows) == 0 or int(rows.max()) >= b.shape[0]:
        return a, b
    own = torch.zeros(max(int(places.max()) + 1, len(rows)), b.shape[1])
    own[places] = b[rows] / torch.from_numpy(piece.factors)
    if piece.columns is not None and len(piece.columns) == a.shape[1]:
        a = a[:, torch.from_numpy(np.argsort(piece.columns))]
    return a, own


def _of_experts(piece: Piece, a: torch.Tensor, b: torch.Tensor, shape: tuple[int, ...]) -> Pair:
    """What a tensor's pairs of all experts say of a parameter: A [experts, rank, in], B [experts, out, rank]."""
    outputs = shape[-1 if piece.transposed else -2]
    expert, row = (torch.from_numpy(each) for each in np.divmod(piece.rows, b.shape[1]))
    source, place = (torch.from_numpy(each) for each in np.divmod(piece.places, outputs))
    own_a, own_b = torch.zeros(shape[0], *a.shape[1:]), torch.zeros(shape[0], outputs, b.shape[2])
    own_a[source] = a[expert]
    own_b[source, place] = b[expert, row] / torch.from_numpy(piece.factors)
    if piece.columns is not None:
        own_a = own_a[..., torch.from_numpy(np.argsort(piece.columns))]
    return own_a, own_b


def _unlike(parts: list[Pair]) -> list[Pair]:
    """Parts of one module that share A are one: their rows of B add up."""
    made: list[Pair] = []
    for a, b in parts:
        same = next((n for n, (other, _) in enumerate(made) if torch.equal(a, other)), None)
        if same is None:
            made.append((a, b))
        else:
            rows = max(b.shape[-2], made[same][1].shape[-2])
            made[same] = (a, _rows(b, rows) + _rows(made[same][1], rows))
    return made


def _together(parts: list[Pair]) -> Pair:
    parts = _unlike(parts)
    rows = max(b.shape[-2] for _, b in parts)
    return torch.cat([a for a, _ in parts], -2), torch.cat([_rows(b, rows) for _, b in parts], -1)


def _rows(b: torch.Tensor, rows: int) -> torch.Tensor:
    return torch.nn.functional.pad(b, (0, 0, 0, rows - b.shape[-2]))


def _config(facts: keys.AdapterFacts, ranks: Mapping[str, int], experts: Container[str]) -> dict[str, Any]:
    """llama.cpp multiplies by alpha / rank of each pair, as PEFT does."""
    rank = max(ranks.values())
    return {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": facts.alpha,
        "target_modules": [module for module in ranks if module not in experts],
        "target_parameters": [module for module in ranks if module in experts] or None,
        "rank_pattern": {re.escape(module): each for module, each in ranks.items() if each != rank},
        INVOCATION: list(facts.invocation) or None,
    }


def _values(file: GgufFile, info: TensorInfo) -> torch.Tensor:
    """A tensor in rows, float32."""
    content = np.memmap(file.path, np.uint8, "r", offset=info.offset, shape=(info.size,))
    kind = gguf.GGMLQuantizationType[info.type_name]
    values = gguf.dequantize(np.array(content), kind)
    return torch.from_numpy(np.ascontiguousarray(values, np.float32)).reshape(tuple(reversed(info.shape)))
