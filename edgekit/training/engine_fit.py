"""Whether the engine will compute what is trained: asked before the hours of training, not after them."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgekit.bases.onnx_findings import onnx_findings
from edgekit.bases.probe.findings import Findings, findings, fitting
from edgekit.bases.probe.window import missing_window
from edgekit.bases.virtual_probe import check_virtual_tokens
from edgekit.project import AUTO, VIRTUAL, Adapter, Project
from edgekit.training.targets import ALL, QUERY_VALUE
from edgekit_exporters.base import Base
from edgekit_runtime.errors import InputError

log = logging.getLogger(__name__)

MERGE = "train without this module (targets), or merge the adapter (mode: merged)"


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
        log.warning(
            "not checked before training whether %s computes %s as torch does: %s; export compares both on the"
            " evaluation rows",
            *(engine.name, base.name, found.unknown),
        )
        return ()
    check_base(base, found, max_length, engine)
    if adapter.method in VIRTUAL:
        check_virtual_tokens(base)
        return ()
    if project.export.mode != "separate" and not adapter.merged:
        return ()
    if adapter.targets not in (ALL, AUTO):
        if adapter.merged:  # nothing is added on the engine; what has no matrix of its own is told by name later
            return ()
        check_targets(adapter.targets, found, engine)
        return ()
    for names, reason in (
        (found.ignored, f"{engine.name} ignores adapters there"),
        (found.placeless, f"no matrix of {engine.name} holds its weight"),
        (found.untrainable, "no adapter can learn there"),
        (found.routers, "it chooses experts; name it in targets to train it"),
    ):
        kinds = [end for end in found.left_out if fitting(names, end)]
        if kinds:
            log.warning("targets: all-linear leaves out %s: %s", ", ".join(kinds), reason)
    if inner := dict.fromkeys(".".join(name.split(".")[-2:]) for name in found.experts):
        log.info("targets: all-linear leaves out experts; to train them, too, list layers and %s", ", ".join(inner))
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
    window = missing_window(base, found)
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
    known = (*found.usable, *found.ignored, *found.placeless, *found.untrainable)
    if targets == "q/v":
        targets = QUERY_VALUE
    if isinstance(targets, str):
        named = [name for name in known if re.fullmatch(targets, name)]
    else:
        named = [name for target in targets for name in fitting(known, target)]
    for name in named:
        if name in found.placeless:
            raise InputError(f"{engine.name} has no place for a change of {name}: no matrix holds its weight", MERGE)
        if name in found.untrainable:
            problem = f"no adapter of {name} learns: transformers reads its weight past one"
            raise InputError(problem, "leave it out of targets")
        if name in found.ignored:
            raise InputError(f"{engine.name} ignores an adapter of {name}", MERGE)


def check_adapted(names: Iterable[str], base: Base) -> None:
    """Refuse an adapter that llama.cpp would load, and that does nothing there, or something else.

    Args:
        names: of the layers, and of the parameters of experts, that it adapts.
        base: that it is for.

    Raises:
        InputError: llama.cpp ignores a change of one of them.
    """
    if base.vision is not None:
        return
    found = findings(base.folder)
    lost = {_any_layer(name) for name in found.ignored} - {_any_layer(name) for name in found.usable}
    for name in names:
        if _any_layer(name) in lost:
            raise InputError(f"llama.cpp ignores an adapter of {name}", "export it with --mode merged")


def _any_layer(name: str) -> str:
    """Names are of all layers, the small model that was asked has a few."""
    return re.sub(r"\.\d+\.", ".0.", name)
