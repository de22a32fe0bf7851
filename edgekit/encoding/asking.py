"""Prompts as transformers' ``generate`` takes them, with virtual tokens before each where the model has some."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Asked:
    """A batch of prompts, filled up at the left.

    Attributes:
        model: whose ``generate`` takes it.
        inputs: arguments of ``generate``.
        width: how many ids of what comes back are the prompt's.
    """

    model: Any
    inputs: dict[str, Tensor]
    width: int


def asked(model: Any, prompts: Sequence[Sequence[int]], pad: int, *, with_adapter: bool = True) -> Asked:
    """Prompts for ``model``.

    Virtual tokens stand right before a prompt, behind what fills it up.  PEFT's own ``generate`` puts them before
    that, where they are further away from a short prompt than from a long one.

    Args:
        model: a causal language model, or PEFT's around one.
        prompts: token ids.
        pad: the id that shorter ones are filled up with.
        with_adapter: False leaves virtual tokens out; layers are for the caller to switch off.
    """
    width = max(map(len, prompts))
    fill = [width - len(prompt) for prompt in prompts]
    ids = torch.tensor([[pad] * more + list(prompt) for more, prompt in zip(fill, prompts, strict=True)])
    mask = torch.tensor([[0] * more + [1] * (width - more) for more in fill])
    ids, mask = ids.to(model.device), mask.to(model.device)
    config = getattr(model, "active_peft_config", None)
    if config is None or not config.is_prompt_learning:
        return Asked(model, {"input_ids": ids, "attention_mask": mask}, width)
    inner = model.get_base_model()
    if not with_adapter:
        return Asked(inner, {"input_ids": ids, "attention_mask": mask}, width)
    embeddings = inner.get_input_embeddings()(ids)
    rows = model.get_prompt(1)[0].to(embeddings.dtype)
    texts = zip(fill, embeddings, strict=True)
    placed = torch.stack([torch.cat([text[:more], rows, text[more:]]) for more, text in texts])
    mask = torch.cat([mask, torch.ones_like(mask[:, :1]).expand(-1, len(rows))], dim=1)  # what fills up stays left
    return Asked(inner, {"inputs_embeds": placed, "attention_mask": mask}, 0)
