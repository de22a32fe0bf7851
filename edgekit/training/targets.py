"""What ``targets`` of an adapter means on a base: layers, and parameters that hold the matrices of all experts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edgekit.bases.probe.findings import fitting
from edgekit.project import Adapter
from edgekit_exporters.base import Base
from edgekit_exporters.peft.base_modules import base_modules
from edgekit_runtime.errors import UsageError

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

    Args:
        targets: of an adapter.
        layers: names of the base's modules.
        experts: names of the parameters that hold all experts' matrices of a layer.
    """
    if isinstance(targets, str):
        return Targets(QUERY_VALUE if targets == "q/v" else targets, [])
    known, inner = list(layers), list(experts)
    chosen = [each for each in targets if fitting(inner, each) and not fitting(known, each)]
    return Targets([each for each in targets if each not in chosen], chosen)


def check_experts(adapter: Adapter, base: Base) -> None:
    """Refuse settings that experts' matrices can't be trained with, before anything is loaded.

    Raises:
        UsageError: the adapter names experts, and has dropout or a method that PEFT hasn't for them.
    """
    modules = base_modules(base)
    named = targets_on(adapter.targets, modules.names, modules.experts).experts
    if not named:
        return
    if adapter.method not in OF_EXPERTS:
        raise UsageError(
            f"{adapter.method} doesn't go with {named[0]}, which holds the matrices of experts",
            f"use one of {', '.join(OF_EXPERTS)}, or leave the experts out of targets",
        )
    if adapter.dropout:
        raise UsageError(
            f"{named[0]} holds the matrices of experts, which PEFT trains without dropout, and dropout is"
            f" {adapter.dropout:g}",
            "set dropout: 0",
        )
