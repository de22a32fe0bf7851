"""AdaLoRA and VeRA become LoRA that answers as PEFT's own adapter does."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AdaLoraConfig, HRAConfig, IA3Config, PeftConfig, VeraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from edgekit_exporters.base import Base
from edgekit_exporters.peft.canonical import canonicalize
from edgekit_exporters.peft.intake import attach, take_in
from edgekit_runtime.errors import InputError
from tests.exporters.conftest import load

TOKENS = torch.tensor([[5, 9, 30, 17, 42, 7]])
TARGETS = ["q_proj", "v_proj", "down_proj"]


def saved(base: Base, folder: Path, config: PeftConfig) -> torch.Tensor:
    """Save an adapter of random numbers; its logits by PEFT, [1, tokens, vocabulary]."""
    torch.manual_seed(2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(load(base), config).eval()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and "ranknum" not in name:
            parameter.data += 0.3 * torch.randn_like(parameter)
    if config.peft_type == "ADALORA":
        singular = {name: value for name, value in model.base_model.model.named_parameters() if "lora_E" in name}
        pruned = {name: [number > 0, False, number > 0, False] for number, name in enumerate(singular)}
        for name, value in singular.items():
            value.data *= torch.tensor(pruned[name]).float()[:, None]
        model.peft_config["default"].rank_pattern = pruned
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=TOKENS).logits
    model.save_pretrained(str(folder))
    return logits


def adalora(**options: Any) -> AdaLoraConfig:
    settings: dict[str, Any] = {"init_r": 4, "target_r": 2, "lora_alpha": 6, "total_step": 10} | options
    return AdaLoraConfig(task_type="CAUSAL_LM", target_modules=TARGETS, **settings)


@pytest.mark.parametrize(
    "config",
    [
        adalora(),
        VeraConfig(task_type="CAUSAL_LM", r=8, target_modules=TARGETS),
    ],
    ids=["AdaLoRA", "VeRA"],
)
def test_the_lora_answers_as_the_adapter_does(tiny_base: Base, tmp_path: Path, config: PeftConfig) -> None:
    wanted = saved(tiny_base, tmp_path, config)
    with torch.no_grad():
        found = attach(load(tiny_base), take_in(tmp_path, tiny_base)).eval()(input_ids=TOKENS).logits
        bare = load(tiny_base)(input_ids=TOKENS).logits
    assert torch.allclose(found, wanted, atol=1e-4, rtol=1e-4)
    assert (wanted - bare).abs().max() > 0.05
    layers = canonicalize(tmp_path, tiny_base).layers
    assert {name.rpartition(".")[2] for name in layers} == set(TARGETS)


def test_vera_without_its_random_matrices_is_refused_with_what_to_do(tiny_base: Base, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = VeraConfig(task_type="CAUSAL_LM", r=8, target_modules=TARGETS, save_projection=False)
    saved(tiny_base, tmp_path, config)
    with pytest.raises(InputError, match="vera_A and vera_B") as caught:
        take_in(tmp_path, tiny_base)
    assert "save_projection=True" in str(caught.value.hint)


def test_a_part_that_is_missing_is_named(tiny_base: Base, tmp_path: Path) -> None:
    saved(tiny_base, tmp_path, adalora())
    file = tmp_path / "adapter_model.safetensors"
    tensors = load_file(file)
    lost = next(name for name in tensors if name.endswith("lora_E"))
    save_file({name: value for name, value in tensors.items() if name != lost}, file)
    with pytest.raises(InputError, match="no lora_E of .*_proj"):
        take_in(tmp_path, tiny_base)


@pytest.mark.parametrize(("key", "value"), [("init_r", "four"), ("lora_alpha", True), ("use_dora", True)])
def test_values_that_cannot_be_right_are_named(tiny_base: Base, tmp_path: Path, key: str, value: Any) -> None:
    saved(tiny_base, tmp_path, adalora())
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    with pytest.raises(InputError, match=key):
        take_in(tmp_path, tiny_base)


@pytest.mark.parametrize(
    "config",
    [
        IA3Config(task_type="CAUSAL_LM", target_modules=["k_proj"], feedforward_modules=[]),
        HRAConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"]),
    ],
    ids=["IA3", "HRA"],
)
def test_kinds_that_multiply_weights_are_refused_by_name(tiny_base: Base, tmp_path: Path, config: PeftConfig) -> None:
    saved(tiny_base, tmp_path, config)
    with pytest.raises(InputError, match=f"{config.peft_type.value}' is not 'LORA'") as caught:
        take_in(tmp_path, tiny_base)
    assert "merge_and_unload" in str(caught.value.hint)
