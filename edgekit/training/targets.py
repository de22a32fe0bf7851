"""What ``targets`` of an adapter means on a base: layers, and parameters that hold the matrices of all experts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgekit.bases.probe.findings import fitting
from edgekit.project import AUTO, Adapter, Export
from edgekit_exporters.base import Base
from edgekit_exporters.peft.base_modules import base_modules
from edgekit_runtime.errors import InputError, UsageError

ALL = "all-linear"
# What `targets: q/v` stands for, as in the LoRA paper.
QUERY_VALUE = ["q_proj", "v_proj"]
OF_EXPERTS = ("qlora", "lora", "rslora", "lora+")  # methods that PEFT has for parameters


@dataclass(frozen=True)
class Targets:
    """In PEFT's words: ``target_modules`` and ``target_parameters``."""

    layers: str | list[str]
    experts: list[str]


def targets_on(targets: str | tuple[str, ...], layers: Iterable[str], experts: Iterable[str]) -> Targets:
    """Take names apart: one that ends no layer's name, and that of experts' matrices, means these.

    ``auto`` is trained on all linear layers first; :mod:`edgekit.trimming` leaves some out afterwards.

    Args:
        targets: of an adapter.
        layers: names of the base's modules.
        experts: names of the parameters that hold all experts' matrices of a layer.
    """
    if isinstance(targets, str):
        return Targets(QUERY_VALUE if targets == "q/v" else ALL if targets == AUTO else targets, [])
    known, inner = list(layers), list(experts)
    chosen = [each for each in targets if fitting(inner, each) and not fitting(known, each)]
    return Targets([each for each in targets if each not in chosen], chosen)


def check_targets_on(base: Base, adapter: Adapter, export: Export) -> None:
    """Refuse targets that can't be trained, or not be exported, before anything is loaded.

    Raises:
        UsageError: experts with dropout, merged, or with a method that PEFT hasn't for them.
        InputError: an adapter, separate or trained merged, of what the engine can't adapt: embedding or output of a
            tied base; on ONNX these and experts.
    """
    modules = base_modules(base)
    targets = targets_on(adapter.targets, modules.names, modules.experts)
    if targets.experts:
        _check_experts(adapter, targets.experts)
    if export.mode != "separate" and not adapter.merged:
        return
    ends = [name for name in (modules.embedding, modules.output) if _names(targets.layers, name)]
    if export.format == "onnx" and (targets.experts or ends):
        raise InputError(
            f"an ONNX base takes adapters in linear layers of its decoder alone, not in {(targets.experts or ends)[0]}",
            "leave it out of targets, or set export.mode: merged",
        )
    if ends and modules.tied and adapter.merged:
        raise InputError(
            f"{base.name} has one matrix for embedding and output, and merged: true can't fold {ends[0]} alone",
            f"leave {ends[0].rpartition('.')[2]} out of targets, or train without merged",
        )
    if ends and modules.tied:
        raise InputError(
            f"{base.name} has one matrix for embedding and output, which llama.cpp can't adapt as {ends[0]} alone",
            f"leave {ends[0].rpartition('.')[2]} out of targets, or set export.mode: merged",
        )


def _names(layers: str | list[str], name: str) -> bool:
    """Whether targets mean a layer, as PEFT reads them."""
    if isinstance(layers, str):
        return layers != ALL and re.fullmatch(layers, name) is not None
    return any(fitting([name], each) for each in layers)


def _check_experts(adapter: Adapter, named: Sequence[str]) -> None:
    if adapter.method not in OF_EXPERTS:
        raise UsageError(
            f"{adapter.method} doesn't go with {named[0]}, which holds the matrices of experts",
            f"use one of {', '.join(OF_EXPERTS)}, or leave the experts out of targets",
        )
    if adapter.merged:
        raise UsageError(
            f"merged: true folds linear layers alone, and {named[0]} holds the matrices of experts",
            "leave the experts out of targets, or train without merged",
        )
    if adapter.dropout:
        raise UsageError(
            f"{named[0]} holds the matrices of experts, which PEFT trains without dropout, and dropout is"
            f" {adapter.dropout:g}",
            "set dropout: 0",
        )
