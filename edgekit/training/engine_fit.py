"""Whether the engine will compute what is trained: asked before the hours of training, not after them."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.bases.onnx_findings import onnx_findings
from edgekit.bases.probe.findings import Findings, findings, fitting
from edgekit.project import Adapter, Project
from edgekit_exporters.base import Base
from edgekit_runtime.errors import InputError

log = logging.getLogger(__name__)

ALL = "all-linear"


@dataclass(frozen=True)
class Engine:
    """What an adapter is trained for; ``other`` is the format of the other one."""

    name: str
    other: str


LLAMA, ONNX_RUNTIME = Engine("llama.cpp", "onnx"), Engine("ONNX Runtime", "gguf")
ENGINES = {"gguf": LLAMA, "onnx": ONNX_RUNTIME}


def layers_left_out(project: Project, adapter: Adapter, base: Base, max_length: int) -> tuple[str, ...]:
    """What ``targets: all-linear`` leaves out for the engine, as ends of layers' names; it is told.

    Args:
        project: its export says which engine, and whether adapters are separate.
        adapter: to train.
        base: what it is trained on.
        max_length: most tokens of a training row.

    Raises:
        InputError: the engine computes something else than transformers for this base, or for rows this long, or has
            no place for a change of a layer that ``targets`` names.
    """
    if base.vision is not None:
        return ()
    engine = ENGINES[project.export.format]
    found = onnx_findings(base.folder) if engine is ONNX_RUNTIME else findings(base.folder)
    if found.unknown is not None:
        log.warning("%s is trained without a check against the engine: %s", base.name, found.unknown)
        return ()
    check_base(base, found, max_length, engine)
    if project.export.mode != "separate":
        return ()
    if adapter.targets != ALL:
        check_targets(adapter.targets, found, engine)
        return ()
    for names, reason in (
        (found.ignored, f"{engine.name} ignores adapters there"),
        (found.placeless, f"no matrix of {engine.name} holds its weight"),
        (found.routers, "it chooses experts; name it in targets to train it"),
    ):
        kinds = [end for end in found.left_out if fitting(names, end)]
        if kinds:
            log.warning("targets: all-linear leaves out %s: %s", ", ".join(kinds), reason)
    return found.left_out


def check_base(base: Base, found: Findings, max_length: int, engine: Engine = LLAMA) -> None:
    """Refuse a base that the engine computes in another way.

    Raises:
        InputError: it does, or does beyond a window that is shorter than ``max_length``.
    """
    if not found.agrees:
        raise InputError(
            f"{engine.name} computes something else than transformers for the configuration of {base.name}"
            f" (KL {found.kl:.2g} on a small model of it)",
            f"use another base, or export.format: {engine.other}",
        )
    config = json.loads((base.folder / "config.json").read_text(encoding="utf-8"))
    window = config.get("sliding_window") if found.window_ignored else None
    if window and max_length > window:
        raise InputError(
            f"{base.name} looks back {window} tokens, {engine.name} has no such window for it, and rows have up to"
            f" {max_length} tokens",
            f"set max_length: {window}, and run it with no more context than that",
        )


def check_targets(targets: str | Sequence[str], found: Findings, engine: Engine = LLAMA) -> None:
    """Refuse layers that a separate adapter can't change on the engine.

    Raises:
        InputError: a target names such a layer.
    """
    known = (*found.usable, *found.ignored, *found.placeless)
    if targets == "q/v":
        targets = ("q_proj", "v_proj")
    if isinstance(targets, str):
        named = [name for name in known if re.fullmatch(targets, name)]
    else:
        named = [name for target in targets for name in fitting(known, target)]
    hint = "train without this module (targets), or merge the adapter (mode: merged)"
    for name in named:
        if name in found.placeless:
            raise InputError(f"{engine.name} has no place for a change of {name}: no matrix holds its weight", hint)
        if name in found.ignored:
            raise InputError(f"{engine.name} ignores an adapter of {name}", hint)
