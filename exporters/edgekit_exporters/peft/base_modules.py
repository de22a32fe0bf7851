"""A base without its weights: what its modules are called, which of them adapters go around, and its own copies."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from edgekit_exporters.base import Base
from edgekit_exporters.hf.float_model import load_float, skeleton
from edgekit_exporters.peft.names import TensorName
from edgekit_runtime.errors import InputError

RESIZED = "make the base with the new tokens first, and give that one (docs/your-base.md, New tokens, says how)"


@dataclass(frozen=True)
class BaseModules:
    """A base without its weights.

    Attributes:
        config: transformers' configuration.
        adaptable: names of the modules that LoRA can be put around.
        names: of all modules.
        parameters: shape by name, a tied output matrix included.
        experts: names of the parameters that hold the matrices of all experts of a layer.
        tied: whether the output matrix is the embedding.
        output: name of the output matrix's module.
        embedding: name of the embedding's module.
    """

    config: Any
    adaptable: tuple[str, ...]
    names: frozenset[str]
    parameters: Mapping[str, tuple[int, ...]]
    experts: tuple[str, ...]
    tied: bool
    output: str
    embedding: str

    @property
    def weighted(self) -> list[str]:
        """Modules that have parameters of their own."""
        return list(dict.fromkeys(name.rpartition(".")[0] for name in self.parameters))

    def check_unchanged(self, name: TensorName, value: torch.Tensor, file: Path, base: Base) -> None:
        """Take a tensor without a place in the adapter when it is a copy of the base's own.

        PEFT puts the weights of an adapted embedding or output matrix into the file, changed or not.

        Raises:
            InputError: it is something else.
        """
        parameter = f"{name.module}.{name.part.removeprefix('base_layer.')}"
        if parameter not in self.parameters:
            raise InputError(
                f"{file}: nothing in the adapter's config says what {name.written} is for",
                "save the adapter again, with the config of its training",
            )
        self.check_vocabulary(name, value, file, base)
        own = base_weights(base, parameter)
        if own.shape != value.shape or not _equal(own, value):
            raise InputError(
                f"{file}: {name.written} is no copy of the base's own weight, and the config doesn't say that it was "
                "trained",
                "use the very base that it was trained on; where that is this one, save the adapter with "
                "save_embedding_layers=False",
            )

    def check_vocabulary(self, name: TensorName, value: torch.Tensor, file: Path, base: Base) -> None:
        """Refuse a tensor of the embedding or the output matrix that has rows for more tokens than the base.

        Raises:
            InputError: it has.
        """
        tokens = self.parameters[f"{self.embedding}.weight"][0]
        if name.module in (self.embedding, self.output) and max(value.shape) > tokens:
            raise InputError(
                f"{file}: {name.written} is for {max(value.shape)} tokens, and {base.name} has {tokens}", RESIZED
            )


@functools.lru_cache(maxsize=2)
def base_modules(base: Base) -> BaseModules:
    """The modules of ``base``, from its config alone."""
    model = skeleton(base.folder)
    linear = (torch.nn.Linear, torch.nn.Embedding, _conv1d())
    modules = dict(model.named_modules())
    output, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    return BaseModules(
        config=model.config,
        adaptable=tuple(name for name, module in modules.items() if isinstance(module, linear)),
        names=frozenset(name for name in modules if name),
        parameters={name: tuple(value.shape) for name, value in model.named_parameters(remove_duplicate=False)},
        experts=expert_parameters(model),
        tied=bool(model.config.tie_word_embeddings),
        output=next((name for name, module in modules.items() if module is output), ""),
        embedding=next((name for name, module in modules.items() if module is embedding), ""),
    )


def expert_parameters(model: Any) -> tuple[str, ...]:
    """Names of the parameters with three dimensions, kernels of convolutions excepted."""
    return tuple(
        f"{name}.{kind}"
        for name, module in model.named_modules()
        if not isinstance(module, torch.nn.Conv1d)
        for kind, value in module.named_parameters(recurse=False)
        if value.dim() == 3
    )


def base_weights(base: Base, parameter: str) -> torch.Tensor:
    """One parameter of the float base, as it is stored."""
    from safetensors import safe_open

    for path in sorted(base.folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            if parameter in file.keys():  # noqa: SIM118 - it is no mapping
                found: torch.Tensor = file.get_tensor(parameter)
                return found
    model = load_float(base.folder, "auto")  # a tied one has no tensor of its own
    weight: torch.Tensor = model.get_parameter(parameter).detach()
    return weight


def _equal(own: torch.Tensor, value: torch.Tensor) -> bool:
    """Equal at the type of the copy, which is the one that the trainer computed in."""
    return torch.equal(own.to(value.dtype), value)


def _conv1d() -> Any:
    from transformers.pytorch_utils import Conv1D

    return Conv1D
