"""B @ A with the scale folded in is the whole adapter, for every variant that is low-rank and additive."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from edgekit_exporters.base import Base
from edgekit_exporters.canonical import CONFIG_FILE, WEIGHTS_FILE, canonicalise
from edgekit_runtime.errors import InputError
from tests.exporters.conftest import load, peft_logits

IDS = torch.arange(40).reshape(2, 20) % 96

VARIANTS = {
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
}


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
def test_folding_the_pairs_into_the_base_gives_the_logits_of_peft(
    options: dict[str, object], tiny_base: Base, tiny_adapter: Callable[..., Path]
) -> None:
    folder = tiny_adapter(**options)
    model = load(tiny_base)
    modules = dict(model.named_modules())
    for name, layer in canonicalise(folder, tiny_base).layers.items():
        modules[name].weight.data += layer.b @ layer.a
    with torch.no_grad():
        assert torch.allclose(model(IDS).logits, peft_logits(tiny_base, folder, IDS), atol=1e-5)


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
def test_what_converters_read_is_plain_lora_with_the_logits_of_the_original(
    options: dict[str, object], tiny_base: Base, tiny_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    folder, plain = tiny_adapter(**options), tmp_path / "plain"
    canonicalise(folder, tiny_base).save(plain)
    config = json.loads((plain / CONFIG_FILE).read_text())
    assert config["lora_alpha"] == config["r"]
    ranks = {t.shape[0] for name, t in load_file(plain / WEIGHTS_FILE).items() if "lora_A" in name}
    assert ranks == {config["r"]}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"], "target_modules": ["q_proj"]}, "modules_to_save"),
        ({"bias": "all"}, "biases"),
        ({"lora_bias": True}, "biases"),
    ],
)
def test_what_is_not_a_low_rank_sum_is_refused_with_the_way_out(
    options: dict[str, object], reason: str, tiny_base: Base, tiny_adapter: Callable[..., Path]
) -> None:
    with pytest.raises(InputError, match=f"{reason}.*--mode merged"):
        canonicalise(tiny_adapter(**options), tiny_base)


def test_an_adapter_of_another_base_is_refused(tiny_base: Base, tiny_adapter: Callable[..., Path]) -> None:
    folder = tiny_adapter(target_modules=["q_proj"])
    config = json.loads((folder / CONFIG_FILE).read_text())
    (folder / CONFIG_FILE).write_text(json.dumps(config | {"target_modules": ["c_attn"]}))
    with pytest.raises(InputError, match="does not fit tiny"):
        canonicalise(folder, tiny_base)


def test_a_missing_half_of_a_pair_is_refused_by_name(tiny_base: Base, tiny_adapter: Callable[..., Path]) -> None:
    folder = tiny_adapter()
    weights = load_file(folder / WEIGHTS_FILE)
    lost = sorted(weights)[0]
    del weights[lost]
    save_file(weights, folder / WEIGHTS_FILE)
    with pytest.raises(InputError, match=lost.replace(".", r"\.")):
        canonicalise(folder, tiny_base)


def test_damaged_weights_and_strange_folders_are_refused(
    tiny_base: Base, tiny_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tiny_adapter()
    content = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="damaged"):
        canonicalise(folder, tiny_base)
    with pytest.raises(InputError, match="not a PEFT adapter"):
        canonicalise(tmp_path / "nowhere", tiny_base)
