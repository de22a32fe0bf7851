"""A transformers model over the blocks of a GGUF file, and the float weights that the blocks stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate import init_empty_weights
from torch import Tensor, nn

from edgekit.packed.linear import PackedEmbedding, PackedLinear
from edgekit.packed.mapping import StoredTensor, stored_tensors, tied_output


def load_packed(
    gguf_path: Path | str, hf_folder: Path | str, *, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> Any:
    """Load a model that computes with the very blocks of a GGUF file.

    Every linear layer and embedding keeps its blocks packed; norms and biases are floats.  Nothing in it is
    trainable: wrap it with PEFT.

    Args:
        gguf_path: the GGUF model.
        hf_folder: the same model's config (and generation config) as a Hugging Face folder; its weights aren't read.
        dtype: of activations, norms and biases: what layers compute in.
        device: where to put it.

    Returns:
        A transformers causal language model in evaluation mode.

    Raises:
        InputError: see :func:`~edgekit.packed.mapping.stored_tensors`, or blocks of an unsupported type.

    """
    config = transformers.AutoConfig.from_pretrained(hf_folder)
    model = _skeleton(config, dtype)
    tied = tied_output(model)
    layers: dict[str, dict[str, StoredTensor]] = {}
    for name, tensor in stored_tensors(Path(gguf_path), model):
        layer, _, kind = name.rpartition(".")
        layers.setdefault(layer, {})[kind] = tensor
    for name, tensors in layers.items():
        _fill(model, name, tensors, dtype)
    if tied is not None:
        blocks = model.get_input_embeddings().blocks
        model.set_submodule(tied.removesuffix(".weight"), PackedLinear(blocks, None, dtype))
    if Path(hf_folder, "generation_config.json").is_file():
        model.generation_config = transformers.GenerationConfig.from_pretrained(hf_folder)
    return model.to(device).eval()


def dequantised_state(gguf_path: Path | str, config: Any, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Return the float weights that a GGUF file stands for, under the names of the transformers model.

    A tied output matrix has no entry: ``load_state_dict(state, strict=False)`` on a model of ``config``.

    Args:
        gguf_path: the GGUF model.
        config: its transformers config.
        dtype: of the weights.

    Raises:
        InputError: as :func:`load_packed`.

    """
    tensors = stored_tensors(Path(gguf_path), _skeleton(config, dtype))
    return {name: tensor.floats(dtype) for name, tensor in tensors}


def _skeleton(config: Any, dtype: torch.dtype) -> Any:
    """The model with parameters that take no memory; buffers (rotary frequencies) are computed."""
    with init_empty_weights(include_buffers=False):
        return transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)


def _fill(model: Any, name: str, tensors: dict[str, StoredTensor], dtype: torch.dtype) -> None:
    """Put the tensors of one layer into it, or a packed layer into its place."""
    layer = model.get_submodule(name)
    if isinstance(layer, nn.Linear):
        bias = tensors["bias"].floats(dtype) if "bias" in tensors else None
        model.set_submodule(name, PackedLinear(tensors["weight"].packed(), bias, dtype))
    elif isinstance(layer, nn.Embedding):
        scale = getattr(layer, "scalar_embed_scale", None)
        packed = PackedEmbedding(tensors["weight"].packed(), dtype, padding_idx=layer.padding_idx, scale=scale)
        model.set_submodule(name, packed)
    else:
        for kind, tensor in tensors.items():
            setattr(layer, kind, nn.Parameter(tensor.floats(dtype), requires_grad=False))
