"""Each kind of adapter is exact on every way out, or refused with advice that works when it is followed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from edgekit_exporters.base import Base
from edgekit_exporters.gguf.adapter import AdapterSource, canonical_adapter
from edgekit_exporters.peft.canonical import canonicalize
from edgekit_exporters.peft.intake import take_in
from edgekit_exporters.peft.merge import merge_to_folder
from edgekit_runtime.errors import InputError
from tests.exporters.conftest import load
from tests.exporters.peft.intake import IDS, own_logits, peft_answers, save_adapter

Q = {"target_modules": ["q_proj"]}
KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora with patterns": {
        "use_rslora": True,
        "rank_pattern": {"q_proj": 2},
        "alpha_pattern": {"layers.1.*v_proj": 3},
    },
    "pissa": {"init_lora_weights": "pissa"},
    "olora": {"init_lora_weights": "olora"},
    "mica": {"init_lora_weights": "mica"},
    "dora": {"use_dora": True},
    "dora on both ends": {"use_dora": True, "target_modules": ["q_proj", "embed_tokens", "lm_head"]},
    "lora_bias": {"lora_bias": True, **Q},
    "bias all": {"bias": "all"},
    "bias lora_only": {"bias": "lora_only"},
    "output": {"target_modules": ["q_proj", "lm_head"]},
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "both ends": {"target_modules": ["embed_tokens", "lm_head"]},
    "ends kept tied": {"target_modules": ["q_proj", "embed_tokens"], "ensure_weight_tying": True},
    "saved output": {"modules_to_save": ["lm_head"], **Q},
    "saved embedding": {"modules_to_save": ["embed_tokens"], **Q},
    "saved norm": {"modules_to_save": ["norm"], **Q},
    "trained tokens": {"trainable_token_indices": [2, 5], **Q},
    "parameters": {"target_parameters": ["k_proj.weight"], "target_modules": ["v_proj"]},
    "activated": {"alora_invocation_tokens": [4, 6]},
    "activated on the output": {"alora_invocation_tokens": [4, 6], "target_modules": ["q_proj", "lm_head"]},
}
BASES = ["llama tied", "llama", "qwen2 tied", "qwen2"]


@pytest.fixture(scope="module", params=BASES)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Base:
    """Tied and untied, with biases (Qwen2) and without."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
    kind, _, tied = request.param.partition(" ")
    torch.manual_seed(0)
    settings = sizes | heads | {"tie_word_embeddings": bool(tied)}
    model = LlamaForCausalLM(LlamaConfig(**settings)) if kind == "llama" else Qwen2ForCausalLM(Qwen2Config(**settings))
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.15)
    folder = tmp_path_factory.mktemp("base") / kind
    model.save_pretrained(folder)
    return Base(request.param, f"{kind}-000000000000", folder)


@pytest.fixture(autouse=True)
def _tokenizer_is_no_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bases here have none."""
    from unittest.mock import MagicMock

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", MagicMock())


def _refusal(work: Any) -> InputError | None:
    try:
        work()
    except InputError as error:
        return error
    return None


def _check_merged(base: Base, folder: Path, target: Path, wanted: torch.Tensor) -> None:
    merge_to_folder(base, [folder], target)
    merged = AutoModelForCausalLM.from_pretrained(target, dtype=torch.float32).eval()
    with torch.no_grad():
        assert torch.allclose(merged(IDS).logits, wanted, atol=2e-4 * float(wanted.abs().max()))


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS.keys())
def test_each_kind_is_exact_or_refused_with_advice_that_works(
    options: dict[str, Any], base: Base, tmp_path: Path
) -> None:
    folder = save_adapter(base, tmp_path / "adapter", **options)
    wanted = peft_answers(base, folder)
    assert torch.equal(own_logits(base, folder), wanted)
    bare = load(base)
    with torch.no_grad():
        assert not torch.allclose(bare(IDS).logits, wanted, atol=1e-3)
    for onnx in (False, True):
        source = AdapterSource("a", "1", folder)
        refused = _refusal(lambda source=source, onnx=onnx: canonical_adapter(source, base, onnx=onnx))
        if refused is None:
            _check_pairs(base, folder, wanted, activated="alora_invocation_tokens" in options)
            continue
        assert refused.hint is not None
        if "--mode merged" in refused.hint:
            _check_merged(base, folder, tmp_path / f"merged-{onnx}", wanted)
        else:
            assert refused.hint.startswith("train without")
        if "--refit-rank" in refused.hint:
            canonical_adapter(AdapterSource("a", "1", folder, refit_rank=32), base, onnx=onnx)
    not_merged = _refusal(lambda: _check_merged(base, folder, tmp_path / "merged", wanted))
    if not_merged is not None:
        assert not_merged.hint is not None
        if "--mode separate" in not_merged.hint:
            canonical_adapter(AdapterSource("a", "1", folder), base)
        else:
            assert not_merged.hint.startswith("train without")


def _check_pairs(base: Base, folder: Path, wanted: torch.Tensor, *, activated: bool) -> None:
    if activated:  # works in a part of a prompt: test_exactness asks the engine
        return
    model = load(base)
    modules = dict(model.named_modules())
    output = model.get_output_embeddings()
    output.weight = torch.nn.Parameter(output.weight.detach().clone())
    for name, layer in canonicalize(folder, base).layers.items():
        update = layer.b @ layer.a
        modules[name].weight.data += update.T if layer.embedding else update
    with torch.no_grad():
        assert torch.allclose(model(IDS).logits, wanted, atol=1e-4 * float(wanted.abs().max()))


def test_an_adapter_whose_start_is_the_base_is_merged_first_or_not_at_all(base: Base, tmp_path: Path) -> None:
    plain = save_adapter(base, tmp_path / "plain")
    pissa = save_adapter(base, tmp_path / "pissa", init_lora_weights="pissa")
    merge_to_folder(base, [pissa, plain], tmp_path / "merged")
    with pytest.raises(InputError, match="name it first"):
        merge_to_folder(base, [plain, pissa], tmp_path / "other")


@pytest.mark.parametrize("end", ["lm_head", "embed_tokens"])
def test_a_copy_of_the_base_weight_that_differs_is_refused(end: str, base: Base, tmp_path: Path) -> None:
    from tests.exporters.peft.intake import edit_weights

    folder = save_adapter(base, tmp_path / "adapter", target_modules=["q_proj", end])
    name = f"base_model.model.{'' if end == 'lm_head' else 'model.'}{end}.base_layer.weight"

    def spoil(weights: dict[str, torch.Tensor]) -> None:
        weights[name] = weights[name] + 0.01

    assert take_in(folder, base).weights.keys() == {
        key for key in take_in(folder, base).weights if "base_layer" not in key
    }
    edit_weights(folder, spoil)
    with pytest.raises(InputError, match=rf"{end}\.base_layer\.weight is no copy of the base's own weight"):
        take_in(folder, base)
