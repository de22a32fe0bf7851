"""What makes a training step quick without changing what is learnt."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import psutil
import torch

from edgekit.bases.folded_layers import folded_layers
from edgekit.bases.quantized import QuantizedLinear
from edgekit.bases.torch_model import compute_dtype, fast_bfloat16
from edgekit.encoding.encoder import Encoded
from edgekit.training.answer_loss import learn_answers_only
from edgekit.training.lora_product import compute_pairs_at_once
from edgekit.training.packing import Collator, collator_for

log = logging.getLogger(__name__)

KEPT_SHARE = 0.25  # of the free memory, at most, for weights that are unpacked once instead of in each step


class Step(NamedTuple):
    """How a step is computed.

    Attributes:
        collator: makes the batches.
        has_loss: the model now computes the loss, with smoothed labels where asked for.
        pads: batches are padded, so that rows of like lengths should stand in one.
    """

    collator: Collator
    has_loss: bool
    pads: bool = True


def quick_step(
    model: Any, padded: Collator, examples: Sequence[Encoded], *, packs: bool = True, label_smoothing: float = 0.0
) -> Step:
    """Change how PEFT's ``model`` computes a step.

    Args:
        model: the base with trainable LoRA layers.
        padded: what makes batches of padded rows.
        examples: all that is learnt.
        packs: False for what needs rows of their own (an activated LoRA, noise that depends on a row's length).
        label_smoothing: see :func:`~edgekit.training.answer_loss.learn_answers_only`.
    """
    if not learn_answers_only(model, label_smoothing=label_smoothing):
        return Step(padded, False)
    compute_pairs_at_once(model)
    keep_floats(model)
    collator = collator_for(model, padded, examples) if packs else padded
    return Step(collator, True, pads=collator is padded)


def keep_floats(model: Any) -> bool:
    """Unpack the weights of packed layers once, where they need at most KEPT_SHARE of the memory that is free.

    Those with a merged adapter in them are unpacked once for each state of it; the base's own are idle there.
    """
    dtype = torch.bfloat16 if fast_bfloat16() else compute_dtype()
    folded = folded_layers(model)
    idle = {layer.get_base_layer() for layer in folded}
    packed = {layer.blocks for layer in model.modules() if isinstance(layer, QuantizedLinear) and layer not in idle}
    sizes = [blocks.rows * blocks.cols for blocks in packed] + [layer.fold.weight.numel() for layer in folded]
    needed = sum(sizes) * dtype.itemsize
    if needed > KEPT_SHARE * _free_memory(next(model.parameters()).device):
        return False
    for blocks in packed:
        blocks.keep(dtype)
    for layer in folded:
        layer.keep(dtype)
    return True


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)
