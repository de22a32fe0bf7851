"""A tiny model in torch and in llama.cpp, bare and under adapters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from edgekit.bases.probe.compare import Distance, Logits, distance, moved
from edgekit.bases.probe.engine import Job, ask
from edgekit.bases.probe.shrunk import VOCABULARY, WINDOW, known
from edgekit.bases.probe.tiny import (
    changed,
    ends,
    linear_layers,
    random_model,
    random_pair,
    random_pairs,
    untrainable,
    without_gradient,
)
from edgekit_exporters.conversion.tensor_map import TensorMap, tensor_map
from edgekit_exporters.gguf.lora import lora_pairs, places_of, write_lora
from edgekit_exporters.peft.canonical import LowRank

# Longer than the window of a shrunk base; no token twice in a row.
PROMPT = [(37 * at * at + 11 * at + 5) % (VOCABULARY - 10) + 5 for at in range(2 * WINDOW + 9)]
LEAST = 1e-4  # a change below is none
VERDICTS = ("honoured", "ignored", "wrong", "idle")
ROUTER = ".ffn_gate_inp"  # in the names of GGUF tensors that choose experts


@dataclass(frozen=True)
class Written:
    """A tiny model on disk; its folder ``merged`` has the same with ``pairs`` in its weights."""

    folder: Path
    model: Any
    pairs: Mapping[str, LowRank]


@dataclass(frozen=True)
class Layers:
    """Names of layers, and of experts' matrices, by what a separate adapter can do there.

    Attributes:
        honoured: the engine's logits move like torch's.
        ignored: the engine computes as if there were no adapter.
        wrong: they move, and not like torch's.
        placeless: no GGUF tensor holds the weight as it is.
        untrainable: PEFT gives them no adapter, or one that learns nothing.
        idle: torch's logits don't move either: nothing reads them.
        routers: they choose experts.
        experts: of them all, parameters that hold experts' matrices.
        ends: of them all, embedding and output; of a tied base, where they weren't measured, their names alone.
    """

    honoured: tuple[str, ...]
    ignored: tuple[str, ...]
    wrong: tuple[str, ...]
    placeless: tuple[str, ...]
    untrainable: tuple[str, ...]
    idle: tuple[str, ...]
    routers: tuple[str, ...]
    experts: tuple[str, ...]
    ends: tuple[str, ...]


@dataclass(frozen=True)
class Measured:
    """Distances of the engine's logits from torch's; ``adapted`` None where no layer takes an adapter."""

    base: Distance
    adapted: Distance | None
    merged: Distance | None
    layers: Layers


def write_tiny(config: Mapping[str, Any], folder: Path, *, merged: bool = False) -> Written:
    """Make a random model of a shrunk configuration; with ``merged`` also the same with an adapter in its weights."""
    model = random_model(known(config))
    pairs = random_pairs(model)
    _save(model, config, folder)
    if merged:
        with changed(model, pairs):
            _save(model, config, folder / "merged")
    return Written(folder, model, pairs)


def _save(model: Any, config: Mapping[str, Any], folder: Path) -> None:
    """With the configuration as it was written, not as transformers writes it."""
    bars = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(folder)
    if bars:
        transformers.utils.logging.enable_progress_bar()
    written = {"architectures": [type(model).__name__], **config}
    (folder / "config.json").write_text(json.dumps(written), encoding="utf-8")


def measure(written: Written, base: Path, merged: Path | None = None) -> Measured:
    """Ask both about the prompt.

    Args:
        written: the tiny model.
        base: its GGUF file.
        merged: the GGUF file of the merged one, or None.

    Raises:
        InputError: llama.cpp refuses it.
    """
    mapping = tensor_map(written.folder)
    model, pairs = written.model, written.pairs
    torch_base = torch_logits(model)
    linear = [name for name in linear_layers(model) if name in pairs]
    without = untrainable(model, linear)
    placeless = tuple(
        name for name, pair in pairs.items() if name not in without and not places_of(name, pair, mapping)
    )
    placed = {name: pair for name, pair in pairs.items() if name not in (*without, *placeless)}
    routers = tuple(name for name in placed if _is_router(name, mapping))
    verdicts, bare = _verdicts(written, placed, base, mapping)
    if distance(torch_base, bare).agree:
        # A second look, with other pairs: an expert that is chosen by a hair's breadth can make one differ.
        doubtful = {
            name: random_pair(name, model, other=True)
            for name, verdict in verdicts.items()
            if verdict in ("ignored", "wrong")
        }
        if doubtful:
            verdicts |= _verdicts(written, doubtful, base, mapping)[0]
    moving = [name for name in linear if verdicts.get(name, "idle") != "idle" and name not in routers]
    without += (silent := without_gradient(model, moving, torch.tensor([PROMPT])))
    placed = {name: pair for name, pair in placed.items() if name not in silent}
    found = {kind: [name for name in placed if verdicts[name] == kind] for kind in VERDICTS}
    honest = {name: pair for name, pair in placed.items() if name in (*found["honoured"], *found["idle"])}
    honest = {name: pair for name, pair in honest.items() if name not in routers}
    adapted = None
    jobs = [Job(base, (_lora(honest, mapping, written.folder / "all.gguf"),))] if honest else []
    answers = ask([*jobs, *([Job(merged)] if merged else [])], PROMPT) if jobs or merged else []
    if honest:
        with changed(model, honest):
            adapted = distance(torch_logits(model), answers[0][0])
    fused = None
    if merged:
        with changed(model, pairs):
            fused = distance(torch_logits(model), answers[-1][0])
    layers = Layers(
        placeless=placeless,
        untrainable=without,
        routers=routers,
        experts=tuple(name for name, pair in pairs.items() if pair.stacked),
        ends=ends(model),
        **{key: tuple(names) for key, names in found.items()},
    )
    return Measured(distance(torch_base, bare), adapted, fused, layers)


def _verdicts(
    written: Written, pairs: Mapping[str, LowRank], base: Path, mapping: TensorMap
) -> tuple[dict[str, str], Logits]:
    """What an adapter of each layer alone does, and the engine's logits without any."""
    folder, model = written.folder, written.model
    files = [_lora({name: pair}, mapping, folder / f"{at}.gguf") for at, (name, pair) in enumerate(pairs.items())]
    bare, *moves = ask([Job(base, (None, *files))], PROMPT)[0]
    before = torch_logits(model)
    made = {}
    for (name, pair), engine in zip(pairs.items(), moves, strict=True):
        with changed(model, {name: pair}):
            made[name] = _verdict(before, torch_logits(model), bare, engine)
    return made, bare


def torch_logits(model: Any) -> Logits:
    """[tokens, vocabulary] for the prompt."""
    with torch.no_grad():
        logits: Logits = model(torch.tensor([PROMPT]), use_cache=False).logits[0].float().numpy()
    return logits


def _verdict(torch_before: Logits, torch_after: Logits, before: Logits, after: Logits) -> str:
    width = min(before.shape[1], torch_before.shape[1])
    expected, found = moved(torch_before, torch_after), moved(before, after)
    if expected < LEAST:
        return "idle" if found < LEAST else "wrong"
    if found < LEAST * min(1.0, expected / LEAST / 10):
        return "ignored"
    change = np.asarray(torch_after - torch_before)[:, :width]
    other = np.asarray(after - before)[:, :width]
    return "honoured" if np.linalg.norm(other - change) < 0.05 * np.linalg.norm(change) + 1e-3 else "wrong"


def _is_router(name: str, mapping: TensorMap) -> bool:
    return any(ROUTER in piece.tensor for piece in mapping.adaptable(name))


def _lora(pairs: Mapping[str, LowRank], mapping: TensorMap, file: Path) -> Path:
    write_lora(lora_pairs(pairs, mapping), file, "F32")
    return file
