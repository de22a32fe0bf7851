"""Blocks chosen for the inputs that layers see, on text that the base itself writes.

No data is asked for, and the same base always gives the same blocks, whatever project it is exported for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgekit_exporters.onnx_blocks import BLOCK, Blocks
from edgekit_exporters.onnx_compensation import Inputs, compensated
from edgekit_exporters.onnx_names import fused_rows, graph_layer
from edgekit_runtime.machine import describe

SEED = 0
BFLOAT16_UNITS = {"avx512_bf16", "bf16"}  # twice as fast as float32 there, and near enough
TEXTS, TOKENS = 64, 48


class Calibration:
    """A Hugging Face folder's model and a text of its own."""

    def __init__(self, folder: Path) -> None:
        """Let the model write."""
        from transformers import AutoModelForCausalLM

        narrow = not BFLOAT16_UNITS.isdisjoint(describe()["flags"])
        dtype = torch.bfloat16 if narrow else torch.float32
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
        with torch.inference_mode():
            self._text = _written_by(self.model)
        self._rows = fused_rows(folder)

    def watch(self, see: Callable[[str, Any, Tensor], None]) -> None:
        """Read the text.  ``see`` gets name, module and inputs [tokens, in] of each linear layer before it runs."""

        def hook(name: str) -> Any:
            return lambda module, inputs: see(name, module, inputs[0].flatten(0, -2).float())

        layers = [(name, each) for name, each in self.model.named_modules() if isinstance(each, torch.nn.Linear)]
        handles = [module.register_forward_pre_hook(hook(name)) for name, module in layers]
        try:
            with torch.inference_mode():
                self.model.base_model(input_ids=self._text, use_cache=False)
        finally:
            for handle in handles:
                handle.remove()

    def blocks(self, weights: Mapping[str, Any], bits: int) -> dict[str, Blocks]:
        """Blocks for the layers of a graph, each for what it sees behind layers that are in blocks already.

        The model has the blocks' numbers afterwards.

        Args:
            weights: the matrices [out, in], float32 arrays, by the graph's names; those that are no layer of the model
                are left out.
            bits: 4 or 8.
        """
        found: dict[str, Blocks] = {}
        last: tuple[Tensor, Inputs] | None = None  # gate and up see the same

        def see(name: str, module: Any, rows: Tensor) -> None:
            nonlocal last
            place, part = graph_layer(name, weights) or (None, None)
            if place is None or rows.shape[1] % BLOCK:
                return
            if place not in found:  # q, k and v are one layer of the graph, and see the same
                if last is None or not torch.equal(last[0], rows):
                    last = rows, Inputs.seen(rows)
                found[place] = compensated(torch.tensor(weights[place]), last[1], bits)
            start, stop = self._rows[part] if part else (0, None)
            module.weight.data = found[place].floats()[start:stop].to(module.weight.dtype)

        self.watch(see)
        return found


def _written_by(model: Any) -> Tensor:
    """Token ids [texts, tokens], drawn from the model, each text from another first token."""
    draws = torch.Generator().manual_seed(SEED)
    ends = model.generation_config.eos_token_id
    last = torch.randint(0, model.config.vocab_size, (TEXTS, 1), generator=draws)
    texts, cache = [last], None
    for _ in range(TOKENS):
        found = model(input_ids=last, past_key_values=cache, use_cache=True)
        logits, cache = found.logits[:, -1].float(), found.past_key_values
        if ends is not None:
            logits[:, ends] = -torch.inf
        # One number a text: torch.multinomial draws one for each token of the vocabulary, slower than the model.
        below = logits.softmax(-1).cumsum(-1)
        last = torch.searchsorted(below, below[:, -1:] * torch.rand(TEXTS, 1, generator=draws))
        texts.append(last)
    return torch.cat(texts, 1)
