"""A LoRA GGUF, as llama.cpp's converter writes it and Ollama's ADAPTER names it, turned back into PEFT's terms."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

from edgekit_exporters.base import Base
from edgekit_exporters.conversions import CONVERSIONS, Conversion, unpaired
from edgekit_exporters.peft.names import PREFIX
from edgekit_exporters.peft.settings import INVOCATION
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats import adapter as keys
from edgekit_runtime.formats.gguf import GgufFile, TensorInfo, read_gguf


def read_lora_gguf(
    path: Path, base: Base, parameters: Mapping[str, tuple[int, ...]], config: Any
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Read a LoRA GGUF.

    Args:
        path: the file.
        base: that it is for.
        parameters: shape by name of the base's parameters.
        config: transformers' configuration of the base.

    Returns:
        What an adapter_config.json would say, and the tensors by PEFT's names, float32.

    Raises:
        InputError: no sound LoRA GGUF, one of another base, or of an architecture whose way back isn't known.
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
    conversion = _conversion(facts.architecture, path, config)
    modules = _modules(facts.architecture, parameters, config)
    tensors: dict[str, torch.Tensor] = {}
    ranks: dict[str, int] = {}
    for target, (_, _, rank) in facts.pairs.items():
        module = modules.get(target)
        if module is None:
            raise InputError(f"{path} changes {target}, which {base.name} lacks", "use it with its own base")
        a, b = (_values(file, file.tensors[target + suffix]) for suffix in (keys.SUFFIX_A, keys.SUFFIX_B))
        heads = conversion.heads_of(f"{module}.", config)
        if heads is not None and b.shape[0] % (2 * heads) == 0:  # of another shape it is refused later
            b = unpaired(b, heads)
        ranks[module] = rank
        if target == keys.EMBEDDING:
            tensors |= {f"{PREFIX}{module}.lora_embedding_A": a.T, f"{PREFIX}{module}.lora_embedding_B": b}
        else:
            tensors |= {f"{PREFIX}{module}.lora_A.weight": a, f"{PREFIX}{module}.lora_B.weight": b}
    return _config(facts, ranks), tensors


def _conversion(architecture: str, path: Path, config: Any) -> Conversion:
    conversion = CONVERSIONS.get(architecture)
    if conversion is None:
        raise InputError(
            f"edgekit has no way back from a GGUF adapter of the architecture {architecture or 'nameless'} ({path})",
            "name the PEFT folder that it was made from",
        )
    if config.model_type not in conversion.model_types:
        raise InputError(
            f"{path} is for the architecture {architecture}, and the base is a {config.model_type}",
            "use it with its own base",
        )
    return conversion


def _modules(architecture: str, parameters: Mapping[str, tuple[int, ...]], config: Any) -> dict[str, str]:
    """GGUF's tensor -> the base's module."""
    number = next(each for each, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    table = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    return {
        tensor: name.removesuffix(".weight")
        for name in parameters
        if name.endswith(".weight") and (tensor := table.get_name(name, try_suffixes=(".weight",))) is not None
    }


def _config(facts: keys.AdapterFacts, ranks: Mapping[str, int]) -> dict[str, Any]:
    """llama.cpp multiplies by alpha / rank of each pair, as PEFT does."""
    rank = max(ranks.values())
    return {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": facts.alpha,
        "target_modules": list(ranks),
        "rank_pattern": {re.escape(module): each for module, each in ranks.items() if each != rank},
        INVOCATION: list(facts.invocation) or None,
    }


def _values(file: GgufFile, info: TensorInfo) -> torch.Tensor:
    """A tensor in rows, float32."""
    content = np.memmap(file.path, np.uint8, "r", offset=info.offset, shape=(info.size,))
    kind = gguf.GGMLQuantizationType[info.type_name]
    values = gguf.dequantize(np.array(content), kind)
    return torch.from_numpy(np.ascontiguousarray(values, np.float32)).reshape(tuple(reversed(info.shape)))
