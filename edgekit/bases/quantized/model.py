"""A transformers model over the blocks that devices run, and the float weights that the blocks stand for."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from edgekit.bases.quantized.block_formats import FLOATS
from edgekit.bases.quantized.experts import QuantizedExperts
from edgekit.bases.quantized.linear import QuantizedEmbedding, QuantizedLinear
from edgekit.bases.quantized.mapping import StoredTensor, stored_tensors, tied_output
from edgekit_exporters.conversion.tensor_map import tensor_map


def load_quantized(
    path: Path | str, hf_folder: Path | str, *, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> Any:
    """Load a model that computes with the very blocks of a GGUF file or an ONNX base.

    Every linear layer and embedding keeps its blocks packed; norms and biases are floats.  Nothing in it is
    trainable: wrap it with PEFT.

    Args:
        path: the GGUF model, or the folder of the ONNX base.
        hf_folder: the same model's config (and generation config) as a Hugging Face folder; its weights are read only
            where an ONNX base has floats.
        dtype: of activations, norms and biases: what layers compute in.
        device: where to put it.

    Returns:
        A transformers causal language model in evaluation mode.

    Raises:
        InputError: see :func:`~edgekit.bases.quantized.mapping.stored_tensors` and
            :func:`~edgekit.bases.quantized.onnx_mapping.onnx_tensors`, or blocks of an unsupported type.

    """
    config = transformers.AutoConfig.from_pretrained(hf_folder, trust_remote_code=False)
    model = _skeleton(config, dtype)
    tied = tied_output(model)
    layers: dict[str, dict[str, StoredTensor]] = {}
    for name, tensor in _tensors(Path(path), model, Path(hf_folder)):
        layer, _, kind = name.rpartition(".")
        layers.setdefault(layer, {})[kind] = tensor
    for name, tensors in layers.items():
        _fill(model, name, tensors, dtype)
    if tied is not None:
        blocks = model.get_input_embeddings().blocks
        model.set_submodule(tied.removesuffix(".weight"), QuantizedLinear(blocks, None, dtype))
    if next(model.parameters(), None) is None:  # norms without weights (OLMo): the first one's device is asked for
        model.register_parameter("empty", nn.Parameter(torch.empty(0, dtype=dtype), requires_grad=False))
    if Path(hf_folder, "generation_config.json").is_file():
        model.generation_config = transformers.GenerationConfig.from_pretrained(hf_folder)
    return model.to(device).eval()


def dequantized_state(
    path: Path | str, config: Any, dtype: torch.dtype = torch.float32, *, hf_folder: Path | str | None = None
) -> dict[str, Tensor]:
    """Return the float weights that blocks stand for, under the names of the transformers model.

    A tied output matrix has no entry: ``load_state_dict(state, strict=False)`` on a model of ``config``.

    Args:
        path: the GGUF model, or the folder of an ONNX base.
        config: its transformers config.
        dtype: of the weights.
        hf_folder: the float model that an ONNX base was made from.

    Raises:
        InputError: as :func:`load_quantized`.

    """
    if hf_folder is not None:
        tensors = _tensors(Path(path), _skeleton(config, dtype), Path(hf_folder))
        return {name: tensor.floats(dtype) for name, tensor in tensors}
    with tempfile.TemporaryDirectory(prefix="edgekit-config-") as folder:
        config.save_pretrained(folder)
        return {
            name: tensor.floats(dtype) for name, tensor in stored_tensors(Path(path), tensor_map(Path(folder)), None)
        }


def _tensors(path: Path, model: Any, hf_folder: Path) -> Iterator[tuple[str, StoredTensor]]:
    if path.is_dir():
        from edgekit.bases.quantized.onnx_mapping import onnx_tensors

        return onnx_tensors(path, model, hf_folder)
    return stored_tensors(path, tensor_map(hf_folder), hf_folder)


def _skeleton(config: Any, dtype: torch.dtype) -> Any:
    """The model with parameters that take no memory; buffers (rotary frequencies) are computed."""
    config._experts_implementation = "eager"  # the one that takes one expert's matrix at a time
    with init_empty_weights(include_buffers=False):
        return transformers.AutoModelForCausalLM.from_config(config, trust_remote_code=False, dtype=dtype)


def _fill(model: Any, name: str, tensors: dict[str, StoredTensor], dtype: torch.dtype) -> None:
    """Put the tensors of one layer into it, or a packed layer into its place."""
    layer = model.get_submodule(name)
    if isinstance(layer, (nn.Linear, Conv1D)) and _is_plain(layer):
        bias = tensors["bias"].floats(dtype) if "bias" in tensors else None
        model.set_submodule(name, QuantizedLinear(tensors["weight"].packed(), bias, dtype))
        return
    if isinstance(layer, nn.Embedding) and _is_plain(layer):
        scale = getattr(layer, "scalar_embed_scale", None)
        packed = QuantizedEmbedding(tensors["weight"].packed(), dtype, padding_idx=layer.padding_idx, scale=scale)
        model.set_submodule(name, packed)
        return
    for kind, tensor in tensors.items():
        if kind in layer._buffers:
            layer._buffers[kind] = tensor.floats(layer._buffers[kind].dtype)
        elif len(tensor.shape) == 3 and tensor.type_name not in FLOATS:
            delattr(layer, kind)
            setattr(
                layer, kind, QuantizedExperts(tensor.packed(), tensor.shape[0], dtype, transposed=tensor.transposed)
            )
        else:
            setattr(layer, kind, nn.Parameter(tensor.floats(dtype), requires_grad=False))


def _is_plain(layer: nn.Module) -> bool:
    """Whether a layer computes what its class in torch does, but for Gemma's factor: another one keeps its own code."""
    known = {nn.Linear.forward, Conv1D.forward, nn.Embedding.forward}
    return type(layer).forward in known or hasattr(layer, "scalar_embed_scale")
