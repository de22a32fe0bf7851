"""The exported files compute what PEFT computes: each variant, separate and merged, on the device's engine.

docs/fidelity.md has the table; the cells are the cases below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from edgekit.bases.resolve import resolve_base
from edgekit_exporters.base import Base
from edgekit_exporters.gguf.adapter import AdapterSource, write_adapter_gguf
from edgekit_exporters.gguf.base import base_gguf, gguf_from_folder
from edgekit_exporters.peft.merge import merge_to_folder
from edgekit_runtime.engines import BARE, Stack, forced_logits
from edgekit_runtime.engines.llama.engine import LlamaEngine
from edgekit_runtime.errors import InputError

VARIANTS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "alpha pattern": {"alpha_pattern": {"q_proj": 32, "layers.1.mlp.down_proj": 1}},
    "rank pattern": {"rank_pattern": {"v_proj": 2, "layers.0.mlp.up_proj": 7}},
    "rslora with both patterns": {
        "use_rslora": True,
        "rank_pattern": {"o_proj": 3},
        "alpha_pattern": {"o_proj": 5},
    },
    "some layers": {"target_modules": ["q_proj", "v_proj"], "layers_to_transform": [1]},
    "excluded modules": {"exclude_modules": ["down_proj"]},
    "pissa": {"init_lora_weights": "pissa"},
    "olora": {"init_lora_weights": "olora"},
}
INVOCATION = [301, 302]  # stands in every prompt
SEPARATE_ONLY: dict[str, dict[str, Any]] = {"activated": {"alora_invocation_tokens": INVOCATION}}
MERGED_ONLY: dict[str, dict[str, Any]] = {"dora": {"use_dora": True}}
PROMPTS, LENGTH, ANSWER = 32, 12, 8
UNDECIDED = 0.02  # nats: the engine keeps keys and values as F16, which moves logits by a few thousandths


@pytest.fixture(scope="module")
def base(tiny_chat_base: Path) -> Base:
    return resolve_base(str(tiny_chat_base))


def _adapter(base: Base, folder: Path, options: dict[str, Any], std: float) -> Path:
    torch.manual_seed(1)
    settings: dict[str, Any] = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"} | options
    model = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32)
    wrapped = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings))
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            parameter.data += std * torch.randn_like(parameter)
        elif "magnitude" in name:
            parameter.data *= 1 + 0.1 * torch.randn_like(parameter)
    wrapped.save_pretrained(str(folder), save_embedding_layers=False)
    return folder


def _peft_answers(base: Base, adapter: Path, answer: int = ANSWER) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts continued greedily by PEFT [prompts, tokens], and log-probabilities before each of these tokens."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(400, 40000, (PROMPTS, LENGTH), generator=generator)
    ids[:, LENGTH // 2 : LENGTH // 2 + len(INVOCATION)] = torch.tensor(INVOCATION)
    model = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, str(adapter)).eval()
    length = {"min_new_tokens": answer, "max_new_tokens": answer, "eos_token_id": None, "pad_token_id": 0}
    with torch.inference_mode():
        whole = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, **length)
        return whole, torch.log_softmax(model(input_ids=whole).logits, -1)


def _check(engine: LlamaEngine, base: Base, adapter: Path, stack: Stack = BARE) -> None:
    whole, expected = _peft_answers(base, adapter)
    divergence = []
    for ids, wanted in zip(whole.tolist(), expected, strict=True):
        found = torch.log_softmax(torch.from_numpy(forced_logits(engine, ids, stack)), -1)
        divergence.append(float((wanted.exp() * (wanted - found)).sum(-1).mean()))
        # Greedy along PEFT's answer picks PEFT's tokens, unless PEFT itself is undecided: the two would say the same.
        picked = found[LENGTH - 1 : -1].argmax(-1, keepdim=True)
        before = wanted[LENGTH - 1 : -1]
        assert (before.max(-1).values - before.gather(-1, picked)[:, 0]).max() < UNDECIDED
    assert np.mean(divergence) < 1e-3


@pytest.fixture
def open_engine() -> Iterator[Callable[[Path], LlamaEngine]]:
    opened: list[LlamaEngine] = []

    def open_base(path: Path) -> LlamaEngine:
        opened.append(LlamaEngine(path, context=64, threads=1))
        return opened[-1]

    yield open_base
    for engine in opened:
        engine.close()


@pytest.mark.parametrize("options", [*VARIANTS.values(), *SEPARATE_ONLY.values()], ids=[*VARIANTS, *SEPARATE_ONLY])
def test_a_separate_adapter_file_is_peft(
    options: dict[str, Any], base: Base, open_engine: Callable[[Path], LlamaEngine], tmp_path: Path
) -> None:
    folder = _adapter(base, tmp_path / "adapter", options, std=0.05)
    write_adapter_gguf(AdapterSource("a", "1", folder), base, tmp_path / "a.gguf", float_type="F32")
    engine = open_engine(base_gguf(base, "F32"))
    engine.load_adapter("a", tmp_path / "a.gguf")
    _check(engine, base, folder, (("a", 1.0),))


@pytest.mark.parametrize("options", [*VARIANTS.values(), *MERGED_ONLY.values()], ids=[*VARIANTS, *MERGED_ONLY])
def test_a_merged_model_is_peft(
    options: dict[str, Any], base: Base, open_engine: Callable[[Path], LlamaEngine], tmp_path: Path
) -> None:
    folder = _adapter(base, tmp_path / "adapter", options, std=0.05)
    merge_to_folder(base, [folder], tmp_path / "merged")
    gguf_from_folder(tmp_path / "merged", tmp_path / "merged.gguf", "F32")
    _check(open_engine(tmp_path / "merged.gguf"), base, folder)


def test_an_activated_lora_cannot_be_merged(base: Base, tmp_path: Path) -> None:
    folder = _adapter(base, tmp_path / "adapter", SEPARATE_ONLY["activated"], std=0.05)
    with pytest.raises(InputError, match="works from its invocation on"):
        merge_to_folder(base, [folder], tmp_path / "merged")


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}], ids=["lora", "rslora"])
def test_on_the_real_model_at_f16_it_is_peft_too(
    options: dict[str, Any], demo_base: Base, open_engine: Callable[[Path], LlamaEngine], tmp_path: Path
) -> None:
    """rsLoRA is what llama.cpp's own converter gets wrong: it comes out the square root of the rank too weak."""
    folder = _adapter(demo_base, tmp_path / "adapter", options, std=0.01)
    write_adapter_gguf(AdapterSource("a", "1", folder), demo_base, tmp_path / "a.gguf")
    engine = open_engine(base_gguf(demo_base, "F16"))
    engine.load_adapter("a", tmp_path / "a.gguf")
    _check(engine, demo_base, folder, (("a", 1.0),))
