"""What targets mean on a base with experts: told from layers, trained on floats and blocks alike, refused in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model_state_dict
from transformers import AutoModelForCausalLM

from base_families import FAMILIES
from edgekit.bases.probe.measure import PROMPT, Written, write_tiny
from edgekit.bases.probe.shrunk import known, shrunk
from edgekit.bases.quantized import load_quantized
from edgekit.bases.quantized.experts import PackedParamWrapper
from edgekit.project import Adapter, Export
from edgekit.training.lora import wrap
from edgekit.training.targets import check_targets_on, targets_on
from edgekit_exporters.base import Base
from edgekit_exporters.conversion.tensor_map import plain_ggufs
from edgekit_exporters.gguf.base import Recipe
from edgekit_runtime.errors import InputError, UsageError

INNER = ("experts.gate_up_proj", "experts.down_proj")
LAYERS = ("a.0.q_proj", "a.0.mlp.experts", "a.1.mlp.down_proj")
EXPERTS = ("a.0.mlp.experts.gate_up_proj", "a.0.mlp.experts.down_proj")


def config_of(kind: str) -> dict[str, Any]:
    return shrunk(next(family for family in FAMILIES if family.kind == kind).raw)


def base_of(kind: str, folder: Path, **changes: Any) -> Base:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config_of(kind) | changes))
    return Base(kind, f"{kind}-000000000000", folder)


def adapter(*targets: str, **settings: Any) -> Adapter:
    return Adapter(name="a", targets=targets, **({"dropout": 0.0, "rank": 4} | settings))


def test_a_name_means_experts_where_it_ends_no_layer() -> None:
    found = targets_on(("q_proj", "experts.down_proj", "down_proj", "gate_up_proj"), LAYERS, EXPERTS)
    assert found.layers == ["q_proj", "down_proj"]
    assert found.experts == ["experts.down_proj", "gate_up_proj"]
    assert targets_on("all-linear", LAYERS, EXPERTS).layers == "all-linear"
    assert targets_on("q/v", LAYERS, EXPERTS).layers == ["q_proj", "v_proj"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"dropout": 0.05}, r"experts\.gate_up_proj holds the matrices of experts.*dropout is 0\.05: set dropout: 0"),
        ({"method": "dora"}, r"dora doesn't go with experts\.gate_up_proj"),
        ({"method": "alora"}, r"alora doesn't go with experts\.gate_up_proj"),
    ],
)
def test_what_peft_lacks_for_experts_is_refused_before_anything_is_loaded(
    settings: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=said):
        check_targets_on(base_of("qwen3_moe", tmp_path), adapter("q_proj", *INNER, **settings), Export())


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens", ".*(q_proj|embed_tokens)"])
def test_ends_of_a_tied_base_are_refused_for_a_separate_adapter(target: str, tmp_path: Path) -> None:
    base = base_of("llama", tmp_path / "tied", tie_word_embeddings=True)
    targets = target if "*" in target else ("q_proj", target)
    named = Adapter(name="a", targets=targets)
    with pytest.raises(InputError, match="one matrix for embedding and output.*export.mode: merged"):
        check_targets_on(base, named, Export())
    check_targets_on(base, named, Export(mode="merged"))
    check_targets_on(base, Adapter(name="a"), Export())
    check_targets_on(base_of("llama", tmp_path / "untied", tie_word_embeddings=False), named, Export())


def test_onnx_takes_no_experts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"linear layers of its decoder alone, not in experts\.down_proj"):
        check_targets_on(base_of("qwen3_moe", tmp_path), adapter("experts.down_proj"), Export(format="onnx"))


@pytest.mark.parametrize("targets", ["all-linear", ("down_proj", "gate_proj")])
def test_layers_of_a_base_with_experts_are_layers(targets: str | tuple[str, ...]) -> None:
    """PEFT takes their names for those of transformers 4, and would put adapters around experts and routers."""
    model = AutoModelForCausalLM.from_config(known(config_of("deepseek_v3")))
    wrapped = wrap(model, Adapter(name="a", targets=targets), "fp32", checkpointing=False)
    adapted = {name for name in get_peft_model_state_dict(wrapped) if "lora_B" in name}
    assert any("shared_experts.down_proj" in name for name in adapted)
    assert any("layers.0.mlp.down_proj" in name for name in adapted)
    assert not any(".mlp.experts." in name or ".mlp.gate." in name for name in adapted)


def test_a_name_that_fits_nothing_is_answered_with_experts_too() -> None:
    model = AutoModelForCausalLM.from_config(known(config_of("qwen3_moe")))
    with pytest.raises(InputError, match=r"fits no layer.*experts\.gate_up_proj"):
        wrap(model, adapter("expert.gate_up_proj"), "fp32", checkpointing=False)


@pytest.fixture(scope="module", params=["qwen3_moe", "gpt_oss"])
def packed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Written, Path]:
    """A tiny model, and the same at Q8_0, which holds its weights to the bit."""
    written = write_tiny(config_of(request.param), tmp_path_factory.mktemp(request.param) / "base")
    ((gguf, _),) = plain_ggufs([written.folder])
    file = written.folder / "q8.gguf"
    Recipe("Q8_0").quantize(Path(gguf), file)
    return written, file


@pytest.mark.parametrize("checkpointing", [False, True])
def test_experts_learn_on_blocks_what_they_learn_on_floats(checkpointing: bool, packed: tuple[Written, Path]) -> None:
    written, file = packed
    gradients = []
    for model in (
        AutoModelForCausalLM.from_pretrained(written.folder, dtype=torch.float32),
        load_quantized(file, written.folder, dtype=torch.float32),
    ):
        torch.manual_seed(1)
        if checkpointing:
            model.gradient_checkpointing_enable()
        tuned = wrap(model, adapter("q_proj", *INNER), "fp32", checkpointing=checkpointing).train()
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(len(name)))
        ids = torch.tensor([PROMPT])
        tuned(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        gradients.append({name: each.grad for name, each in tuned.named_parameters() if each.requires_grad})
    dense, blocks = gradients
    assert any(isinstance(module, PackedParamWrapper) for module in tuned.modules())
    assert sum(".experts." in name for name in dense) == 2 * 2 * 2  # A and B, two matrices, two layers
    for name, gradient in blocks.items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(gradient, dense[name], rtol=1e-3, atol=1e-6)


def test_packed_experts_are_never_merged(packed: tuple[Written, Path]) -> None:
    written, file = packed
    model = load_quantized(file, written.folder, dtype=torch.float32)
    tuned = wrap(model, adapter(*INNER), "gguf", checkpointing=False)
    with pytest.raises(UsageError, match="nothing can be merged into them"):
        tuned.merge_and_unload()
