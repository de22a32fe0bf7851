"""B @ A with the scale folded in is the whole adapter, for every variant that is low-rank and additive."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from edgekit_exporters.base import Base
from edgekit_exporters.hf.plain_files import ADAPTER_CONFIG
from edgekit_exporters.peft.canonical import canonicalize
from edgekit_exporters.peft.files import WEIGHTS_FILE
from edgekit_exporters.peft.refit import refit
from edgekit_runtime.errors import InputError
from tests.exporters.conftest import load, peft_logits

IDS = torch.arange(40).reshape(2, 20) % 96

VARIANTS = {
    "biases that the base does not have": {"bias": "all"},
    "lora": {},
    "rslora": {"use_rslora": True},
    "alpha pattern": {"alpha_pattern": {"q_proj": 32, "layers.1.mlp.down_proj": 1}},
    "rank pattern": {"rank_pattern": {"v_proj": 2, "layers.0.mlp.up_proj": 7}},
    "rank and alpha pattern with rslora": {
        "use_rslora": True,
        "rank_pattern": {"o_proj": 3},
        "alpha_pattern": {"o_proj": 5},
    },
    "one layer": {"target_modules": ["q_proj", "v_proj"], "layers_to_transform": [1]},
    "regular expression": {"target_modules": r".*layers\.0\..*(gate|k)_proj"},
    "excluded modules": {"exclude_modules": ["down_proj"]},
    "odd alpha": {"lora_alpha": 3, "r": 5},
    "pissa": {"init_lora_weights": "pissa"},
    "olora with rslora": {"init_lora_weights": "olora", "use_rslora": True},
}


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
def test_folding_the_pairs_into_the_base_gives_the_logits_of_peft(
    options: dict[str, object], tiny_base: Base, tiny_adapter: Callable[..., Path]
) -> None:
    folder = tiny_adapter(**options)
    model = load(tiny_base)
    modules = dict(model.named_modules())
    for name, layer in canonicalize(folder, tiny_base).layers.items():
        modules[name].weight.data += layer.b @ layer.a
    with torch.no_grad():
        assert torch.allclose(model(IDS).logits, peft_logits(tiny_base, folder, IDS), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"use_dora": True}, "DoRA.*--mode merged, or --refit-rank"),
        ({"modules_to_save": ["lm_head"], "target_modules": ["q_proj"]}, "modules_to_save.*--mode merged$"),
        ({"lora_bias": True}, "biases.*train without lora_bias$"),
    ],
)
def test_what_is_not_a_low_rank_sum_is_refused_with_the_way_out(
    options: dict[str, object], reason: str, tiny_base: Base, tiny_adapter: Callable[..., Path]
) -> None:
    with pytest.raises(InputError, match=reason):
        canonicalize(tiny_adapter(**options), tiny_base)


def test_a_start_that_can_not_be_computed_again_is_refused(tiny_base: Base, tiny_adapter: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="path_initial_model_for_weight_conversion"):
        canonicalize(tiny_adapter(init_lora_weights="pissa_niter_4"), tiny_base)


def test_weights_that_are_stored_transposed_are_folded_the_right_way(tmp_path: Path) -> None:
    """GPT-2's Conv1D keeps [in, out]."""
    from peft import LoraConfig, get_peft_model
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=96, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "base")
    base = Base("gpt2", "gpt2-000000000000", tmp_path / "base")
    settings = LoraConfig(r=4, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM")
    wrapped = get_peft_model(load(base), settings)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    wrapped.save_pretrained(str(tmp_path / "adapter"))
    model = load(base)
    modules = dict(model.named_modules())
    for name, layer in canonicalize(tmp_path / "adapter", base).layers.items():
        modules[name].weight.data += (layer.b @ layer.a).T
    with torch.no_grad():
        assert torch.allclose(model(IDS).logits, peft_logits(base, tmp_path / "adapter", IDS), atol=1e-5)


def test_an_adapter_of_another_width_is_refused(tiny_base: Base, tiny_adapter: Callable[..., Path]) -> None:
    folder = tiny_adapter()
    weights = load_file(folder / WEIGHTS_FILE)
    name = next(name for name in sorted(weights) if "lora_A" in name)
    weights[name] = weights[name][:, :-1].contiguous()
    save_file(weights, folder / WEIGHTS_FILE)
    with pytest.raises(InputError, match="does not fit tiny"):
        canonicalize(folder, tiny_base)


def test_an_adapter_of_another_base_is_refused(tiny_base: Base, tiny_adapter: Callable[..., Path]) -> None:
    folder = tiny_adapter(target_modules=["q_proj"])
    config = json.loads((folder / ADAPTER_CONFIG).read_text())
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config | {"target_modules": ["c_attn"]}))
    with pytest.raises(InputError, match="does not fit tiny"):
        canonicalize(folder, tiny_base)


def test_a_missing_half_of_a_pair_is_refused_by_name(tiny_base: Base, tiny_adapter: Callable[..., Path]) -> None:
    folder = tiny_adapter()
    weights = load_file(folder / WEIGHTS_FILE)
    lost = sorted(weights)[0]
    del weights[lost]
    save_file(weights, folder / WEIGHTS_FILE)
    with pytest.raises(InputError, match=lost.replace(".", r"\.")):
        canonicalize(folder, tiny_base)


def test_damaged_weights_and_strange_folders_are_refused(
    tiny_base: Base, tiny_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tiny_adapter()
    content = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="damaged"):
        canonicalize(folder, tiny_base)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="not a PEFT adapter"):
        canonicalize(tmp_path / "empty", tiny_base)
    with pytest.raises(InputError, match="not there"):
        canonicalize(tmp_path / "nowhere", tiny_base)


def test_a_dora_adapter_is_refitted_by_the_closest_pair_with_its_error(
    tiny_base: Base, tiny_adapter: Callable[..., Path]
) -> None:
    folder = tiny_adapter(use_dora=True)
    exact, nothing_lost = refit(folder, tiny_base, rank=32)  # the full rank of the smaller side of every matrix
    model = load(tiny_base)
    modules = dict(model.named_modules())
    for name, layer in exact.layers.items():
        modules[name].weight.data += layer.b @ layer.a
    with torch.no_grad():
        assert torch.allclose(model(IDS).logits, peft_logits(tiny_base, folder, IDS), atol=1e-4)
    errors = [refit(folder, tiny_base, rank)[1] for rank in (2, 8, 16)]
    assert nothing_lost < 1e-5 < errors[2] < errors[1] < errors[0] < 1


def test_a_plain_adapter_is_refitted_without_loss_at_its_own_rank(
    tiny_base: Base, tiny_adapter: Callable[..., Path]
) -> None:
    assert refit(tiny_adapter(r=4), tiny_base, rank=4)[1] < 1e-5
