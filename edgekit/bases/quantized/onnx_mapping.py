"""Which blocks of an ONNX base are which Hugging Face parameter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from edgekit.bases.quantized.block_formats import ONNX_TYPES
from edgekit.bases.quantized.mapping import OTHER_PRECISION, StoredTensor, float_tensor, tied_output
from edgekit_exporters.onnx.base import blocks_of
from edgekit_exporters.onnx.blocks import Blocks
from edgekit_exporters.onnx.layer_names import fused_rows, graph_layer
from edgekit_runtime.errors import InputError

HEAD = "lm_head"


def onnx_tensors(folder: Path, model: Any, floats: Path) -> Iterator[tuple[str, StoredTensor]]:
    """Yield each parameter of ``model`` with the blocks that an ONNX base has for it, or its floats where it has none.

    Args:
        folder: the base, as :func:`~edgekit_exporters.onnx.base.base_onnx` writes it.
        model: the transformers model of the same config; only names and shapes of its parameters are used.
        floats: the Hugging Face folder that the base was made from; norms and biases are the same in both.

    Raises:
        InputError: blocks that the model has no place for.
    """
    found = blocks_of(folder)
    rows = fused_rows(floats)
    tied = tied_output(model)
    head = f"{HEAD}.weight" if tied is None else f"{_name_of(model, model.get_input_embeddings())}.weight"
    used = set()
    for name, parameter in model.named_parameters():
        if name == tied:
            continue
        place = (HEAD, None) if name == head else graph_layer(name.removesuffix(".weight"), found)
        if place is None or place[0] not in found:
            yield name, float_tensor(floats, name)
            continue
        layer, part = place
        used.add(layer)
        start, stop = rows[part] if part else (0, parameter.shape[0])
        yield name, _stored(found[layer], start, stop, parameter.shape)
    if unused := sorted(set(found) - used):
        raise InputError(
            f"the ONNX base has blocks that {model.config.model_type} has no place for: {', '.join(unused[:3])}",
            OTHER_PRECISION,
        )


def _name_of(model: Any, wanted: Any) -> str:
    return str(next(name for name, module in model.named_modules() if module is wanted))


def _stored(blocks: Blocks, start: int, stop: int, shape: torch.Size) -> StoredTensor:
    """Rows of a matrix as a block format: scale, zero and codes of a block together."""
    codes = blocks.packed_codes()[start:stop]
    scales = blocks.scales[start:stop].half().unsqueeze(-1).view(torch.uint8)
    together = torch.cat([scales, blocks.zeros[start:stop].unsqueeze(-1), codes.view(*scales.shape[:2], -1)], -1)
    return StoredTensor(together.flatten(1), ONNX_TYPES[blocks.bits], shape)
