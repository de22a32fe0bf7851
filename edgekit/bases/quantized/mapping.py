"""Which GGUF tensor is which Hugging Face parameter, and what llama.cpp's converter did to it on the way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import torch
from torch import Tensor

from edgekit.bases.quantized.blocks import QuantizedBlocks, dequantize
from edgekit_exporters.conversions import CONVERSIONS, Conversion, unpaired
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.gguf import GgufFile, TensorInfo, read_gguf

OTHER_PRECISION = "use base_precision nf4 or bf16 for this model"
# Derived from the config, so they have no parameter: frequencies of scaled rotary embeddings.
DERIVED = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")


@dataclass(frozen=True)
class StoredTensor:
    """One parameter's blocks, rows in Hugging Face's order: uint8 [rows, bytes of a row]."""

    blocks: Tensor
    type_name: str
    shape: torch.Size
    shift: float

    def packed(self) -> QuantizedBlocks:
        """The matrix as packed blocks in memory of their own."""
        return QuantizedBlocks(self.blocks, self.type_name)

    def floats(self, dtype: torch.dtype) -> Tensor:
        """The parameter as the float model has it."""
        values = dequantize(self.blocks, self.type_name, torch.float32) - self.shift
        return values.view(self.shape).to(dtype)


def stored_tensors(path: Path, model: Any) -> Iterator[tuple[str, StoredTensor]]:
    """Yield each parameter of ``model`` with what the GGUF file has for it.

    Args:
        path: a GGUF model.
        model: the transformers model of the same config; only names and shapes of its parameters are used.

    Raises:
        InputError: an architecture that isn't supported or isn't the model's, a parameter without a tensor, a tensor
            without a parameter, or two shapes that differ.

    """
    file = read_gguf(path)
    conversion = _conversion(file, model.config)
    content = torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8)
    names = _names(file, model)
    unused = set(file.tensors) - set(names.values()) - set(DERIVED)
    if unused:
        raise InputError(
            f"{path.name} has tensors that {model.config.model_type} has no place for: {_some(unused)}",
            "give the config of this very model",
        )
    for name, parameter in model.named_parameters():
        if name in names:
            yield name, _stored(file.tensors[names[name]], content, name, parameter.shape, model.config, conversion)


def _conversion(file: GgufFile, config: Any) -> Conversion:
    architecture = file.metadata.get("general.architecture")
    conversion = CONVERSIONS.get(str(architecture))
    if conversion is None:
        raise InputError(
            f"training on GGUF blocks isn't supported for the architecture {architecture}", OTHER_PRECISION
        )
    if config.model_type not in conversion.model_types:
        raise InputError(
            f"{file.path.name} is a {architecture}, the Hugging Face folder a {config.model_type}",
            "give the folder of the same model",
        )
    return conversion


def _names(file: GgufFile, model: Any) -> dict[str, str]:
    """Parameter -> tensor, without an output matrix that is the embedding."""
    architecture = next(
        number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == file.metadata["general.architecture"]
    )
    table = gguf.get_tensor_name_map(architecture, model.config.num_hidden_layers)
    tied = tied_output(model)
    names, missing = {}, []
    for name, _ in model.named_parameters():
        if name == tied:
            continue
        tensor = table.get_name(name, try_suffixes=(".weight", ".bias"))
        if tensor in file.tensors:
            names[name] = tensor
        else:
            missing.append(name)
    if missing:
        raise InputError(f"{file.path.name} has no tensor for {_some(missing)}", "give the config of this very model")
    return names


def tied_output(model: Any) -> str | None:
    """Name of the output matrix when it is the embedding's, else None."""
    if not model.config.tie_word_embeddings:
        return None
    output = model.get_output_embeddings()
    return next(f"{name}.weight" for name, module in model.named_modules() if module is output)


def _stored(
    info: TensorInfo, content: Tensor, name: str, shape: torch.Size, config: Any, conversion: Conversion
) -> StoredTensor:
    if tuple(reversed(info.shape)) != tuple(shape):
        raise InputError(
            f"{info.name} is {tuple(reversed(info.shape))} in the GGUF file, {name} is {tuple(shape)} by the config",
            "give the config of this very model",
        )
    rows = shape[0] if len(shape) > 1 else 1
    blocks = content[info.offset : info.offset + info.size].view(rows, -1)
    heads = conversion.heads_of(name, config)
    if heads is not None:
        blocks = unpaired(blocks.view(shape[0], -1), heads).view(rows, -1)
    is_norm = name.endswith("norm.weight")
    return StoredTensor(blocks, info.type_name, shape, conversion.norm_shift if is_norm else 0.0)


def _some(names: list[str] | set[str]) -> str:
    shown = sorted(names)[:3]
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" if len(names) > len(shown) else "")
