"""How much an error in each input of a layer weighs: measured on text that the base itself writes.

No data is asked for, and the same base always gives the same blocks, whatever project it is exported for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from edgekit_exporters.onnx_names import BLOCKS
from edgekit_runtime.onnx_base import FUSED

SEED = 0
TEXTS, TOKENS = 16, 96


def measure_importance(folder: Path) -> dict[str, torch.Tensor]:
    """Mean squares of the inputs [in] of every linear layer of a Hugging Face folder, by the graph's layer names."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    sums: dict[str, torch.Tensor] = {}
    with torch.inference_mode():
        text = _written_by(model)
        with _watching(model, sums):
            model(input_ids=text)
    return {name: total / text.numel() for name, total in sums.items()}


def _written_by(model: Any) -> torch.Tensor:
    """Token ids [texts, tokens], drawn from the model, each text from another first token."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        first = torch.randint(0, model.config.vocab_size, (TEXTS, 1))
        settings = {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS, "do_sample": True, "top_k": 0}
        found: torch.Tensor = model.generate(
            input_ids=first, attention_mask=torch.ones_like(first), pad_token_id=0, **settings
        )
    return found


@contextmanager
def _watching(model: Any, sums: dict[str, torch.Tensor]) -> Iterator[None]:
    def watch(name: str) -> Any:
        def add(_module: Any, inputs: tuple[torch.Tensor, ...], _output: Any) -> None:
            sums[name] = inputs[0].flatten(0, -2).square().sum(0)

        return add

    handles = []
    for name, module in model.named_modules():
        parts = name.split(".")
        if isinstance(module, torch.nn.Linear) and len(parts) == 5 and parts[3] in BLOCKS:
            prefix = f"{'.'.join(parts[:3])}.{BLOCKS[parts[3]]}"
            handles.append(module.register_forward_hook(watch(f"{prefix}.{parts[4]}")))
            if parts[4] == "q_proj":  # q, k and v see the same inputs
                handles.append(module.register_forward_hook(watch(f"{prefix}.{FUSED}")))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
