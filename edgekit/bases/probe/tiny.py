"""A tiny model with random weights that Q8_0 holds to the bit, and random pairs for its layers."""

from __future__ import annotations

import copy
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from edgekit_exporters.peft.base_modules import expert_parameters
from edgekit_exporters.peft.canonical import LowRank

RANK = 4
BLOCKS = 8  # some bases keep all their layers, which are of few kinds


def random_model(config: Any) -> Any:
    """A float32 model of ``config``.

    Half of each matrix is plus or minus 127 steps of a power of two, the rest less: wherever a block of Q8_0 begins,
    its scale is that power, and nothing is rounded.  Vectors stay near where the architecture starts them.
    """
    config._experts_implementation = "eager"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = transformers.AutoModelForCausalLM.from_config(
            config, trust_remote_code=False, dtype=torch.float32, attn_implementation="eager"
        ).eval()
    generator = torch.Generator().manual_seed(1)
    kept = model.state_dict()
    buffers = {name: value for name, value in model.named_buffers() if name in kept}
    with torch.no_grad():
        for value in (*model.parameters(), *buffers.values()):
            if value.is_floating_point() and value.numel():
                value.copy_(_matrix(value, generator) if _is_matrix(value) else _vector(value, generator))
        for module in model.modules():
            if getattr(module, "scaling", None) == 1.0 and hasattr(module, "k_norm"):
                module.k_norm.weight.mul_(0.125)  # Gemma 4 has trained norms do what scales do elsewhere
    return model


def linear_layers(model: Any) -> dict[str, nn.Module]:
    """The layers that ``targets: all-linear`` may mean: all matrices but the output's, of the first blocks."""
    output = model.get_output_embeddings()
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D)) and module is not output and not _is_late(name)
    }


def _is_late(name: str) -> bool:
    return any(part.isdecimal() and int(part) >= BLOCKS for part in name.split("."))


def ends(model: Any) -> tuple[str, ...]:
    """Names of embeddings and output matrix."""
    output = model.get_output_embeddings()
    return tuple(name for name, module in model.named_modules() if isinstance(module, nn.Embedding) or module is output)


def random_pairs(model: Any) -> dict[str, LowRank]:
    """A pair for everything that an adapter can be put around: matrices of layers and of experts, both ends.

    Ends that are one matrix are left out: an engine that has one tensor for them can't adapt it as one of them.
    """
    experts = [name for name in expert_parameters(model) if not _is_late(name)]
    one = (model.get_input_embeddings(), model.get_output_embeddings()) if model.config.tie_word_embeddings else ()
    last = [name for name in ends(model) if not any(model.get_submodule(name) is each for each in one)]
    return {name: random_pair(name, model) for name in (*linear_layers(model), *experts, *last)}


def untrainable(model: Any, names: Sequence[str]) -> tuple[str, ...]:
    """Those of the layers that PEFT gives no adapter: Mamba's kernels would read their weights past it."""

    def refuses(kinds: Sequence[str]) -> bool:
        try:
            get_peft_model(copy.deepcopy(model), LoraConfig(r=1, target_modules=list(kinds), task_type="CAUSAL_LM"))
        except ValueError:
            return True
        return False

    if not names or not refuses(names):
        return ()
    kinds = dict.fromkeys(name.rpartition(".")[2] for name in names)
    refused = {kind for kind in kinds if refuses([kind])}
    return tuple(name for name in names if name.rpartition(".")[2] in refused)


def without_gradient(model: Any, names: Sequence[str], tokens: Tensor) -> tuple[str, ...]:
    """Those whose adapters learn nothing: transformers reads their weights past the layer (Mamba's dt_proj)."""
    if not names:
        return ()
    tuned: Any = get_peft_model(
        copy.deepcopy(model), LoraConfig(r=1, target_modules=list(names), task_type="CAUSAL_LM")
    )
    tuned(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
    live = [
        name
        for name, parameter in tuned.named_parameters()
        if "lora_B" in name and parameter.grad is not None and parameter.grad.any()
    ]
    return tuple(name for name in names if not any(f".{name}." in each for each in live))


def random_pair(name: str, model: Any, *, other: bool = False) -> LowRank:
    """Pairs that change a layer about as much as a training does, and then some; ``other`` ones for a second look."""
    owner = None if name in expert_parameters(model) else model.get_submodule(name)
    weight = model.get_parameter(name) if owner is None else owner.weight
    *experts, rows, columns = weight.shape
    transposed, embedding = isinstance(owner, Conv1D), isinstance(owner, nn.Embedding)
    if transposed or embedding:
        rows, columns = columns, rows
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()) + other)
    a = torch.randn(*experts, RANK, columns, generator=generator) / math.sqrt(rows if embedding else columns)
    b = torch.randn(*experts, rows, RANK, generator=generator) / math.sqrt(RANK) / 2
    return LowRank(a, b, transposed, embedding)


@contextmanager
def changed(model: Any, pairs: Mapping[str, LowRank]) -> Iterator[None]:
    """The model with the pairs added to its weights."""
    weights = {name: model.get_parameter(name if pair.stacked else f"{name}.weight") for name, pair in pairs.items()}
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    try:
        with torch.no_grad():
            for name, pair in pairs.items():
                change = pair.b @ pair.a
                weights[name].add_(change.mT if pair.transposed or pair.embedding else change)
        yield
    finally:
        with torch.no_grad():
            for name, value in before.items():
                weights[name].copy_(value)


def _is_matrix(value: Tensor) -> bool:
    if value.dim() == 2:
        return max(value.shape) >= 32
    return value.dim() > 2 and min(value.shape[-2:]) > 8


def _matrix(value: Tensor, generator: torch.Generator) -> Tensor:
    steps = torch.randint(-127, 128, value.shape, generator=generator)
    ends = torch.randint(0, 2, value.shape, generator=generator) * 254 - 127
    steps = torch.where(torch.rand(value.shape, generator=generator) < 0.5, ends, steps)
    power = round(math.log2(127 * math.sqrt(max(value.shape[-1], 16))))
    return steps * 2.0**-power


def _vector(value: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(value.shape, generator=generator) * 0.1
    return torch.round((value.detach().float() + noise) * 256) / 256
