"""Pairs that PEFT puts around a parameter (``target_parameters``), not around a layer: which parameter, and how."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from edgekit_exporters.peft.names import PREFIX


@dataclass(frozen=True)
class OfParameter:
    """What a pair goes around that PEFT puts on a parameter (``target_parameters``), not on a layer.

    Attributes:
        name: the layer of a matrix; the parameter's own name where it holds the matrices of all experts.
        experts: how many matrices the parameter holds.
        stacked: whether it has a dimension for them.
        flipped: A runs along its rows and B along its columns (gpt-oss's experts, GPT-2's Conv1D, embeddings).
        embedding: it is looked up by token.
    """

    name: str
    experts: int = 1
    stacked: bool = False
    flipped: bool = False
    embedding: bool = False


def is_parameter(module: Any) -> bool:
    """Whether PEFT has put it around a parameter."""
    from peft.tuners.lora.layer import ParamWrapper

    return isinstance(module, ParamWrapper)


def of_parameter(name: str, wrapper: Any) -> OfParameter:
    """PEFT nests its wrappers where a module has several parameters."""
    from transformers.pytorch_utils import Conv1D

    module, owner = name.replace(".base_layer", ""), wrapper.get_base_layer()
    if wrapper.get_param().dim() == 3:
        stacked = {"experts": wrapper.num_experts, "stacked": True}
        return OfParameter(
            f"{module}.{wrapper.parameter_name}", flipped=not wrapper._did_swap_in_out_features, **stacked
        )
    embedding = isinstance(owner, torch.nn.Embedding)
    whole = module if wrapper.parameter_name == "weight" else f"{module}.{wrapper.parameter_name}"
    return OfParameter(whole, flipped=embedding or isinstance(owner, Conv1D), embedding=embedding)


def around_parameter(
    name: str, a: torch.Tensor, b: torch.Tensor, targeted: Container[str], known: Iterable[str]
) -> dict[str, torch.Tensor]:
    """PEFT's tensors around a parameter of experts; of several of one module each later one is wrapped around the rest.

    Args:
        name: of the parameter.
        a: [experts, rank, in].
        b: [experts, out, rank].
        targeted: names of all parameters that the adapter has pairs around.
        known: names of the base's parameters that hold experts, in its order.
    """
    owner = name.rpartition(".")[0]
    beside = [each for each in known if each in targeted and each.rpartition(".")[0] == owner]
    inner = "base_layer." * (len(beside) - 1 - beside.index(name))
    return {
        f"{PREFIX}{owner}.{inner}lora_A.weight": a.reshape(-1, a.shape[-1]),
        f"{PREFIX}{owner}.{inner}lora_B.weight": b.permute(1, 2, 0).reshape(b.shape[1], -1),
    }
