"""A GGUF's tensors under the names and in the layout of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from edgekit_runtime.adapter import KEY_ARCHITECTURE
from edgekit_runtime.errors import InputError
from edgekit_runtime.gguf import GgufFile, read_gguf
from torch import nn

from edgekit.packed.dequantise import dequantise
from edgekit.packed.layers import PackedEmbedding, PackedLinear, PackedWeight

# Architectures whose GGUF differs from transformers' layout by names alone, and by the row order of Q and K in llama.
ARCHITECTURES = ("llama", "qwen2", "qwen3")
# Tensors that a GGUF may have and transformers computes.
COMPUTED = ("rope_freqs.weight",)


def load_packed(gguf: Path, folder: Path, *, dtype: torch.dtype, device: torch.device) -> Any:
    """A transformers model whose matrices are the very blocks of ``gguf``.

    Args:
        gguf: the quantised base.
        folder: Hugging Face folder with the config of the same model.
        dtype: of activations, and of norms and biases.
        device: where to put it.

    Raises:
        InputError: an architecture or block type that isn't supported, or a file of another model.

    """
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    tensors = _Tensors(gguf, config)
    embedding = model.get_input_embeddings()
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Embedding) and module is embedding:
            model.set_submodule(name, PackedEmbedding(tensors.packed(f"{name}.weight"), dtype))
        elif isinstance(module, nn.Linear):
            bias = tensors.dense(f"{name}.bias") if module.bias is not None else None
            model.set_submodule(name, PackedLinear(_linear(tensors, name, config), bias, dtype))
    for name, parameter in list(model.named_parameters()):
        if parameter.is_meta:
            module, _, leaf = name.rpartition(".")
            value = nn.Parameter(tensors.dense(name).to(dtype), requires_grad=False)
            setattr(model.get_submodule(module), leaf, value)
    for name, module in list(model.named_modules()):
        if any(buffer.is_meta for buffer in module.buffers(recurse=False)):  # rotary tables, computed from the config
            model.set_submodule(name, type(module)(config))
    tensors.check_all_used()
    return model.to(device).eval()


def dequantised_state(gguf: Path, config: Any) -> dict[str, torch.Tensor]:
    """All weights that a GGUF's blocks stand for, float32, by transformers' parameter names.

    Raises:
        InputError: as :func:`load_packed`.

    """
    from transformers import AutoModelForCausalLM

    tensors = _Tensors(gguf, config)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    state = {}
    for name, _ in model.named_parameters(remove_duplicate=False):
        tied = config.tie_word_embeddings and name == "lm_head.weight"
        state[name] = state["model.embed_tokens.weight"] if tied else tensors.dense(name)
    tensors.check_all_used()
    return state


def _linear(tensors: _Tensors, name: str, config: Any) -> PackedWeight:
    """A linear layer's blocks; a tied output matrix shares those of the embedding."""
    if name == "lm_head" and config.tie_word_embeddings:
        return tensors.packed("model.embed_tokens.weight")
    return tensors.packed(f"{name}.weight")


class _Tensors:
    """A GGUF's tensors by transformers' names."""

    def __init__(self, path: Path, config: Any) -> None:
        import gguf as reference

        self.header: GgufFile = read_gguf(path)
        self.config = config
        architecture = str(self.header.metadata.get(KEY_ARCHITECTURE))
        if architecture not in ARCHITECTURES:
            raise InputError(
                f"training on GGUF blocks is not supported for {architecture}", "set base_precision: nf4, bf16 or fp32"
            )
        self._permuted = architecture == "llama"
        kind = next(key for key, name in reference.MODEL_ARCH_NAMES.items() if name == architecture)
        self._names = reference.get_tensor_name_map(kind, config.num_hidden_layers)
        self._content = np.memmap(path, dtype=np.uint8, mode="r")
        self._packed: dict[str, PackedWeight] = {}
        self._used: set[str] = set()

    def packed(self, name: str) -> PackedWeight:
        """A matrix as blocks; asking twice gives the same memory."""
        if name not in self._packed:
            blocks, type_name, _ = self._read(name)
            self._packed[name] = PackedWeight(blocks, type_name)
        return self._packed[name]

    def dense(self, name: str) -> torch.Tensor:
        """Any tensor as float32 in transformers' shape."""
        blocks, type_name, shape = self._read(name)
        return dequantise(blocks, type_name).reshape(shape)

    def check_all_used(self) -> None:
        """Raise InputError when the file holds weights that the model has no place for."""
        left = set(self.header.tensors) - self._used - set(COMPUTED)
        if left:
            raise InputError(f"{self.header.path} has the tensor {min(left)}, which this model lacks", "check the base")

    def _read(self, name: str) -> tuple[torch.Tensor, str, tuple[int, ...]]:
        stem, _, leaf = name.rpartition(".")
        mapped = self._names.get_name(stem)
        info = self.header.tensors.get(f"{mapped}.{leaf}")
        if info is None:
            raise InputError(f"{self.header.path} has no tensor for {name}", "check that it is a GGUF of this base")
        self._used.add(info.name)
        shape = tuple(reversed(info.shape))
        rows = shape[0] if len(shape) > 1 else 1
        data = np.array(self._content[info.offset : info.offset + info.size])
        blocks = torch.from_numpy(data).reshape(rows, -1)
        if self._permuted:
            blocks = self._unpermuted(blocks, stem.rpartition(".")[2], rows)
        return blocks, info.type_name, shape

    def _unpermuted(self, blocks: torch.Tensor, layer: str, rows: int) -> torch.Tensor:
        """Undo the row order that llama.cpp's converter gives Q and K (``LlamaModel.permute``) for its rotary layout.

        Blocks run along rows, so whole rows of blocks can be moved.
        """
        heads = {"q_proj": self.config.num_attention_heads, "k_proj": self.config.num_key_value_heads}.get(layer)
        if heads is None or rows == 1:
            return blocks
        order = torch.arange(rows).reshape(heads, rows // heads // 2, 2).transpose(1, 2).reshape(-1)
        return blocks[order].contiguous()
