"""The frozen base that an adapter is trained on, at the precision that was asked for."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.initialization import no_init_weights

from edgekit.bases.weights import Weights
from edgekit_exporters.base import Base

log = logging.getLogger(__name__)

FLOATS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def device() -> torch.device:
    """CUDA when there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fast_bfloat16() -> bool:
    """Whether matrices are multiplied faster in bfloat16 here: on recent GPUs, and CPUs with AVX512-BF16 or AMX."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def compute_dtype() -> torch.dtype:
    """Type of activations: half as wide on a GPU; on a CPU float32, which autocast narrows where that is faster."""
    if torch.cuda.is_available():
        return torch.bfloat16 if fast_bfloat16() else torch.float16
    return torch.float32


def load_base(base: Base, weights: Weights) -> Any:
    """Load the base for training at ``weights``, whose blocks have been made where it has any."""
    if weights.blocks is not None:
        from edgekit.bases.quantized import load_quantized

        return load_quantized(weights.blocks, base.folder, dtype=compute_dtype(), device=device())
    options: dict[str, Any] = {"device_map": {"": device()}, "use_safetensors": True}
    if weights.precision in FLOATS:
        options["dtype"] = FLOATS[weights.precision]
    else:
        options["dtype"] = compute_dtype()
        options["quantization_config"] = _bitsandbytes(weights.precision)
    model = transformers.AutoModelForCausalLM.from_pretrained(base.folder, trust_remote_code=False, **options)
    layer: Any
    for layer in model.modules():
        # On some CPUs bitsandbytes packs NF4 anew in evaluation, and layers in that form pass no gradients on.
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False
    return model


def load_dense(base: Base, blocks: Path, dtype: torch.dtype) -> Any:
    """The base with the float weights that ``blocks`` stand for: a GGUF file or the folder of an ONNX base."""
    from edgekit.bases.quantized import dequantized_state

    config = transformers.AutoConfig.from_pretrained(base.folder, trust_remote_code=False)
    with torch.device(device()), no_init_weights():
        model = transformers.AutoModelForCausalLM.from_config(config, trust_remote_code=False, dtype=dtype)
    state = dequantized_state(blocks, config, hf_folder=base.folder)
    model.load_state_dict(state, strict=False)  # a tied output matrix has no entry
    model.tie_weights()
    return model.to(device()).eval()


def _bitsandbytes(precision: str) -> Any:
    if precision == "int8":
        return transformers.BitsAndBytesConfig(load_in_8bit=True)
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype(),
    )
