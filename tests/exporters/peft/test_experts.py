"""Adapters of experts, of single tokens and of both ends: llama.cpp computes of them what PEFT does."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from base_families import FAMILIES
from edgekit.bases.probe.compare import distance
from edgekit.bases.probe.engine import Job, ask
from edgekit.bases.probe.measure import PROMPT, torch_logits, write_tiny
from edgekit.bases.probe.shrunk import shrunk
from edgekit_exporters.base import Base
from edgekit_exporters.conversion.tensor_map import plain_ggufs
from edgekit_exporters.gguf.adapter import AdapterSource, canonical_adapter, write_adapter_gguf
from edgekit_exporters.peft.as_named import as_named
from edgekit_exporters.peft.canonical import canonicalize
from edgekit_exporters.peft.combinations import Combination
from edgekit_exporters.peft.combine import Part, combine
from edgekit_exporters.peft.intake import attach, take_in
from edgekit_exporters.peft.merge import merge_to_folder
from edgekit_exporters.peft.written import write_peft
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.gguf import read_gguf
from edgekit_runtime.intake import adapters as device
from tests.exporters.conftest import load

KINDS = ("qwen3_moe", "gpt_oss")  # gate and up stacked; interleaved, transposed and with biases
INNER = ["experts.gate_up_proj", "experts.down_proj"]
TOKENS = [PROMPT[3], PROMPT[7], PROMPT[20], 250, 251, 252]  # more than the rank


@dataclass(frozen=True)
class Tiny:
    """A model of random weights, and its GGUF file at F32."""

    base: Base
    gguf: Path


@pytest.fixture(scope="module")
def tinies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Tiny]]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    made = {
        kind: write_tiny(
            shrunk(next(each for each in FAMILIES if each.kind == kind).raw), tmp_path_factory.mktemp(kind) / "base"
        )
        for kind in KINDS
    }
    files = plain_ggufs([written.folder for written in made.values()])
    yield {
        kind: Tiny(Base(kind, f"{kind}-000000000000", written.folder), Path(file))
        for (kind, written), (file, _) in zip(made.items(), files, strict=True)
    }
    torch.set_num_threads(threads)


def saved(base: Base, folder: Path, **options: Any) -> np.ndarray:
    """Save an adapter whose every tensor is random; what PEFT answers under it, [tokens, vocabulary]."""
    torch.manual_seed(1)
    settings: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]} | options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(load(base), LoraConfig(task_type="CAUSAL_LM", **settings)).eval()
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data += 0.05 * torch.randn_like(parameter)
        model.save_pretrained(str(folder), save_embedding_layers=False)
    return torch_logits(model)


def check_separate(tiny: Tiny, folder: Path, wanted: np.ndarray, target: Path) -> None:
    """The adapter file is sound to a device, and answers as PEFT did."""
    write_adapter_gguf(AdapterSource("a", "1", folder), tiny.base, target, float_type="F32")
    device.take_in(target, read_gguf(tiny.gguf), family=tiny.base.family)
    bare, found = ask([Job(tiny.gguf, (None, target))], PROMPT)[0]
    assert not distance(wanted, bare).agree
    assert distance(wanted, found).agree, distance(wanted, found)


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_of_experts_are_exact_separate_merged_and_back_from_gguf(
    kind: str, tinies: dict[str, Tiny], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny, folder = tinies[kind], tmp_path / "adapter"
    patterns = {"rank_pattern": {"experts.down_proj": 3}, "alpha_pattern": {"experts.down_proj": 5}}
    wanted = saved(tiny.base, folder, target_parameters=INNER, use_rslora=True, **patterns)
    check_separate(tiny, folder, wanted, tmp_path / "a.gguf")
    again = attach(load(tiny.base), take_in(tmp_path / "a.gguf", tiny.base)).eval()
    assert distance(wanted, torch_logits(again)).agree
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", MagicMock())  # the base has none
    merge_to_folder(tiny.base, [folder], tmp_path / "merged")
    ((merged, _),) = plain_ggufs([tmp_path / "merged"])
    assert isinstance(merged, Path), merged
    assert distance(wanted, ask([Job(merged)], PROMPT)[0][0]).agree


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_of_experts_combine_exactly(kind: str, tinies: dict[str, Tiny], tmp_path: Path) -> None:
    base, folders = tinies[kind].base, [tmp_path / "a", tmp_path / "b"]
    wanted = saved(base, folders[0], target_parameters=INNER, rank_pattern={"experts.down_proj": 3})
    saved(base, folders[1], target_parameters=INNER[:1], r=2)
    parts = [
        Part(each.name, canonicalize(each, base), weight) for each, weight in zip(folders, (1.0, 0.5), strict=True)
    ]
    back = Part("b", parts[1].adapter, -0.5)
    made = {"both": [*parts[:1], parts[1]], "a again": [*parts, back]}
    found = {}
    for name, pairs in made.items():
        (tmp_path / name).mkdir()
        write_peft(combine(pairs, Combination()), base, "", tmp_path / name)
        found[name] = torch_logits(attach(load(base), take_in(tmp_path / name, base)).eval())
    assert distance(wanted, found["a again"]).agree, distance(wanted, found["a again"])
    assert not distance(wanted, found["both"]).agree


OTHERS: dict[str, dict[str, Any]] = {
    "experts alone": {"target_modules": [], "target_parameters": INNER[:1]},
    "matrices by parameter": {"target_parameters": ["q_proj.weight", "mlp.gate.weight", "lm_head.weight"]},
    "embedding by parameter": {"target_parameters": ["embed_tokens.weight"]},
    "embedding and output": {"target_modules": ["embed_tokens", "lm_head", "q_proj"]},
    "tokens": {"trainable_token_indices": TOKENS},
    "tokens of both ends": {"trainable_token_indices": {"embed_tokens": TOKENS[:2], "lm_head": TOKENS[2:]}},
}


@pytest.mark.parametrize("options", OTHERS.values(), ids=OTHERS.keys())
def test_what_is_a_matrix_or_a_row_of_one_is_exact_as_a_separate_adapter(
    options: dict[str, Any], tinies: dict[str, Tiny], tmp_path: Path
) -> None:
    tiny, folder = tinies["qwen3_moe"], tmp_path / "adapter"
    if "mlp.gate.weight" in options.get("target_parameters", ()):
        options = options | {"target_modules": ["k_proj"]}
    check_separate(tiny, folder, saved(tiny.base, folder, **options), tmp_path / "a.gguf")


def test_tokens_of_more_than_the_rank_leave_other_pairs_as_they_are(tinies: dict[str, Tiny], tmp_path: Path) -> None:
    tiny, folder = tinies["qwen3_moe"], tmp_path / "adapter"
    saved(tiny.base, folder, trainable_token_indices=TOKENS)
    write_adapter_gguf(AdapterSource("a", "1", folder), tiny.base, tmp_path / "a.gguf")
    shapes = {name: tensor.shape for name, tensor in read_gguf(tmp_path / "a.gguf").tensors.items()}
    assert shapes["blk.0.attn_q.weight.lora_b"][0] == 4
    assert shapes["token_embd.weight.lora_b"][0] == 8  # a power of two times the rank: no digit is lost


def test_an_onnx_base_takes_no_experts_and_says_which(tinies: dict[str, Tiny], tmp_path: Path) -> None:
    base = tinies["qwen3_moe"].base
    saved(base, tmp_path / "adapter", target_parameters=INNER)
    with pytest.raises(InputError, match=r"it adapts model\.layers\.0\.mlp\.experts\.\w+, and an ONNX base") as caught:
        canonical_adapter(AdapterSource("a", "1", tmp_path / "adapter"), base, onnx=True)
    assert caught.value.hint == "export it with --mode merged"


def test_norms_are_refused_by_name(tinies: dict[str, Tiny], tmp_path: Path) -> None:
    base = tinies["qwen3_moe"].base
    saved(base, tmp_path / "adapter", modules_to_save=["input_layernorm", "q_norm"])
    with pytest.raises(InputError, match=r"it replaces input_layernorm, q_norm as a whole") as caught:
        canonical_adapter(AdapterSource("a", "1", tmp_path / "adapter"), base)
    assert caught.value.hint == "export it with --mode merged"


def test_experts_of_transformers_4_are_refused_with_advice_that_works(tinies: dict[str, Tiny], tmp_path: Path) -> None:
    base, old, new = tinies["qwen3_moe"].base, tmp_path / "old", tmp_path / "new"
    saved(base, old, target_modules=["q_proj"])
    config = json.loads((old / "adapter_config.json").read_text())
    sizes = {"gate_proj": (192, 64), "up_proj": (192, 64), "down_proj": (64, 192)}
    (old / "adapter_config.json").write_text(json.dumps(config | {"target_modules": ["q_proj", *sizes]}))
    weights = load_file(old / "adapter_model.safetensors")
    for layer in range(2):
        for expert in range(4):
            for name, (inputs, outputs) in sizes.items():
                place = f"base_model.model.model.layers.{layer}.mlp.experts.{expert}.{name}"
                weights[f"{place}.lora_A.weight"] = 0.1 * torch.randn(4, inputs)
                weights[f"{place}.lora_B.weight"] = 0.1 * torch.randn(outputs, 4)
    save_file(weights, old / "adapter_model.safetensors")
    with pytest.raises(InputError, match="is of one expert.*trained with transformers 4") as caught:
        take_in(old, base)
    assert caught.value.hint
    assert "PeftModel.from_pretrained" in caught.value.hint
    model = PeftModel.from_pretrained(load(base), str(old)).eval()
    model.save_pretrained(str(new))
    with as_named():
        found = attach(load(base), take_in(new, base)).eval()
    assert distance(torch_logits(model), torch_logits(found)).agree
    assert not distance(torch_logits(load(base)), torch_logits(found)).agree


@pytest.mark.parametrize(
    "options", [{"target_modules": ["q_proj", "embed_tokens"]}, {"modules_to_save": ["embed_tokens", "lm_head"]}, {}]
)
def test_a_larger_vocabulary_is_refused_with_advice_that_works(
    options: dict[str, Any], tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The advice is the code in docs/your-base.md."""
    _, advice = (Path(__file__).parents[3] / "docs" / "your-base.md").read_text().split("### New tokens")
    torch.manual_seed(0)
    larger = load(tiny_base)
    larger.resize_token_embeddings(100)
    settings: dict[str, Any] = {"r": 2, "target_modules": ["q_proj"]} | options
    tuned = get_peft_model(larger, LoraConfig(task_type="CAUSAL_LM", **settings)).eval()
    for parameter in tuned.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter) if parameter.requires_grad else 0
    tuned.save_pretrained(str(tmp_path / "adapter"), save_embedding_layers=True)
    with pytest.raises(InputError, match="is for 100 tokens, and tiny has 96") as caught:
        take_in(tmp_path / "adapter", tiny_base)
    assert caught.value.hint
    assert "docs/your-base.md, New tokens" in caught.value.hint
    (tmp_path / "base").symlink_to(tiny_base.folder)
    monkeypatch.chdir(tmp_path)
    tokenizer = MagicMock()
    tokenizer.from_pretrained.return_value.__len__.return_value = 100
    monkeypatch.setattr("transformers.AutoTokenizer", tokenizer)  # the tiny base has none
    exec(advice.split("```python\n")[1].split("```")[0], {})
    base = Base("with-tokens", "with-tokens-000000000000", tmp_path / "base-with-tokens")
    ids = torch.arange(100)[None, 76:]
    with torch.no_grad():
        found = attach(load(base), take_in(tmp_path / "adapter", base)).eval()(ids).logits
        torch.testing.assert_close(found, tuned(ids).logits)
