"""What each way to choose 4-bit blocks loses: KL against the float base on its own greedy answers, weights only.

    python benchmarks/onnx_quality.py

Rounding of activations is left out on both sides: llama.cpp's and ONNX Runtime's kernels both round them to 8 bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from edgekit.bases import resolve_base
from edgekit.packed import dequantised_state
from edgekit_exporters.gguf_base import base_gguf
from edgekit_exporters.onnx_blocks import BLOCK, fit_blocks
from edgekit_exporters.onnx_calibration import measure_importance

BASE = "smollm2-135m"
ANSWER = 40
QUESTIONS = (
    "Name three colours and write one short line about each.",
    "What is the capital of France?",
    "Explain why the sky is blue.",
    "Write a haiku about machines.",
    "List four tools used in a workshop.",
    "Summarise: the part has a scratch of 3 mm near the edge, and was rejected.",
    "What does HTTP stand for?",
    "How do I boil an egg?",
    "Give me a JSON object with keys verdict and size.",
    "Translate good morning into Spanish.",
)


def rounded(weight: Tensor, symmetric: bool) -> Tensor:
    """Round to nearest, 4 bits."""
    groups = weight.view(weight.shape[0], -1, BLOCK)
    if symmetric:
        scale = groups.abs().amax(-1, keepdim=True) / 7
        return ((groups / scale).round().clamp(-8, 7) * scale).flatten(1)
    low, high = groups.amin(-1, keepdim=True).clamp(max=0), groups.amax(-1, keepdim=True).clamp(min=0)
    scale = (high - low) / 15
    zero = (-low / scale).round()
    return (((groups / scale + zero).round().clamp(0, 15) - zero) * scale).flatten(1)


def main() -> None:
    """Print a line for each."""
    base = resolve_base(BASE)

    def load() -> Any:
        return AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32).eval()

    tokenizer = AutoTokenizer.from_pretrained(base.folder)
    float_model = load()
    asked = []
    with torch.inference_mode():
        for question in QUESTIONS:
            messages = [{"role": "user", "content": question}]
            encoded = tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
            ids = encoded["input_ids"]
            whole = float_model.generate(ids, max_new_tokens=ANSWER, do_sample=False, pad_token_id=2)
            before = torch.log_softmax(float_model(whole).logits[0, ids.shape[1] - 1 : -1], -1)
            asked.append((whole, ids.shape[1], before))

    def report(name: str, model: Any) -> None:
        divergence, same = [], []
        with torch.inference_mode():
            for whole, length, wanted in asked:
                found = torch.log_softmax(model(whole).logits[0, length - 1 : -1], -1)
                divergence.append((wanted.exp() * (wanted - found)).sum(-1))
                same.append((wanted.argmax(-1) == found.argmax(-1)).float())
        print(f"{name:32}{torch.cat(divergence).mean():8.4f}{100 * torch.cat(same).mean():7.1f} %", flush=True)

    def with_blocks(name: str, change: Callable[[str, Tensor], Tensor]) -> None:
        model = load()
        with torch.inference_mode():
            for layer, module in model.named_modules():
                if isinstance(module, torch.nn.Linear) and layer != "lm_head":
                    graph_name = layer.replace("self_attn", "attn")
                    module.weight.data = change(graph_name, module.weight.data)
            head = fit_blocks(model.lm_head.weight.data, 8).floats()
            model.lm_head.weight.data = model.model.embed_tokens.weight.data = head
        report(name, model)

    for kind in ("Q4_0", "Q4_K_M", "Q8_0"):
        model = load()
        model.load_state_dict(dequantised_state(base_gguf(base, kind), model.config), strict=False)
        model.tie_weights()
        report(f"llama.cpp {kind}", model)
    importance = measure_importance(base.folder)
    with_blocks("rounded, symmetric", lambda _, weight: rounded(weight, True))
    with_blocks("rounded, asymmetric", lambda _, weight: rounded(weight, False))
    with_blocks("ranges searched", lambda _, weight: fit_blocks(weight, 4).floats())
    with_blocks("searched by importance (int4)", lambda name, weight: fit_blocks(weight, 4, importance[name]).floats())
    with_blocks("8 bits (int8)", lambda _, weight: fit_blocks(weight, 8).floats())


if __name__ == "__main__":
    main()
