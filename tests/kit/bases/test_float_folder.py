"""Hugging Face folders as people have them: sharded, of links, in half precision; and those that can't be a base."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from edgekit.bases.float_folder import check_architecture
from edgekit.bases.resolve import check_base, check_new_base, resolve_base
from edgekit.bases.torch_model import load_base
from edgekit.bases.weights import Weights
from edgekit_exporters.gguf.base import base_gguf
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.gguf import read_gguf

CARD = "---\nlicense: mit\nbase_model: owner/model-7b\n---\n# A model\n"
LISTED = "---\nbase_model:\n- owner/model-7b\ntags: [x]\n---\n"
IDS = torch.arange(100, 120)[None]


def _save(model: Any, tokenizer_of: Path, folder: Path, **options: Any) -> Path:
    model.save_pretrained(folder, **options)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tokenizer_of / name, folder)
    return folder


def _snapshot(folder: Path, cache: Path) -> Path:
    """The folder as the hub's cache keeps it: links with the files' names to blobs with their digests."""
    snapshot, blobs = cache / "snapshots" / "0123abcd", cache / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted(folder.iterdir())):
        blob = Path(shutil.copy(path, blobs / f"{number:040x}"))
        (snapshot / path.name).symlink_to(Path("..", "..", "blobs", blob.name))
    return snapshot


@pytest.fixture(scope="module")
def tiny(tiny_chat_base: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_chat_base, dtype=torch.float32)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_shards_of_half_precision_behind_links_are_a_base(
    dtype: str, tiny: Any, tiny_chat_base: Path, tmp_path: Path
) -> None:
    kind = getattr(torch, dtype)
    half, rounded = copy.deepcopy(tiny).to(kind), copy.deepcopy(tiny)
    rounded.load_state_dict({name: value.to(kind).float() for name, value in tiny.state_dict().items()})
    saved = _save(half, tiny_chat_base, tmp_path / "saved", max_shard_size="200KB")
    assert len(list(saved.glob("*.safetensors"))) > 1
    snapshot = _snapshot(saved, tmp_path / "models--owner--tiny")
    check_base(str(snapshot))
    base = resolve_base(str(snapshot))
    loaded = load_base(base, Weights("torch", "fp32"))
    with torch.no_grad():
        expected = rounded(IDS).logits
        torch.testing.assert_close(loaded(IDS).logits, expected)
    assert torch.isfinite(expected).all()
    if dtype == "bfloat16":
        assert read_gguf(base_gguf(base, "BF16")).tensors["blk.0.attn_q.weight"].type_name == "BF16"


def test_a_gguf_behind_a_link_of_the_hubs_cache_keeps_its_name(tiny_chat_base: Path, tmp_path: Path) -> None:
    blob = Path(shutil.copy(base_gguf(resolve_base(str(tiny_chat_base)), "F16"), tmp_path / "0123abcd"))
    link = tmp_path / "tiny-F16.gguf"
    link.symlink_to(blob)
    assert resolve_base(str(link)).gguf == link


def test_a_missing_shard_is_named(tiny: Any, tiny_chat_base: Path, tmp_path: Path) -> None:
    folder = _save(tiny, tiny_chat_base, tmp_path / "saved", max_shard_size="5MB")
    *_, last = sorted(folder.glob("*.safetensors"))
    last.unlink()
    with pytest.raises(InputError, match=f"has no {last.name}"):
        check_base(str(folder))


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}, "FP8"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "GPTQ"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "AWQ"),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "bitsandbytes"),
        ({"quantization_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
        ({"quantization_config": {"quant_method": "mxfp4"}}, "MXFP4"),
        ({"quantization_config": {"quant_method": "hqq"}}, "'hqq'"),
        ({"quantization_config": {"bits": 4}}, "a quantizer that it doesn't name"),
        ({"compression_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
        ({"text_config": {"quantization_config": {"quant_method": "awq"}}}, "AWQ"),
    ],
)
def test_a_quantized_checkpoint_is_refused_at_once_with_its_method(
    config: dict[str, Any], named: str, tiny_chat_base: Path, tmp_path: Path
) -> None:
    folder = _with_config(tiny_chat_base, tmp_path, config)
    save_file(
        {"model.layers.0.mlp.up_proj.qweight": torch.zeros(8, 8, dtype=torch.int32)}, folder / "packed.safetensors"
    )
    for look in (check_base, resolve_base):
        with pytest.raises(InputError, match=f"quantized already, by {named}") as refused:
            look(str(folder))
        assert "original checkpoint in bf16, fp16 or fp32" in str(refused.value.hint)


@pytest.mark.parametrize("card", [CARD, LISTED])
def test_what_it_was_made_from_is_told_where_its_card_does(card: str, tiny_chat_base: Path, tmp_path: Path) -> None:
    folder = _with_config(tiny_chat_base, tmp_path, {"quantization_config": {"quant_method": "awq"}})
    save_file(
        {"model.layers.0.mlp.up_proj.qweight": torch.zeros(8, 8, dtype=torch.int32)}, folder / "packed.safetensors"
    )
    (folder / "README.md").write_text(card)
    with pytest.raises(InputError) as refused:
        check_base(str(folder))
    assert "base: owner/model-7b" in str(refused.value.hint)


def test_a_config_that_says_it_is_not_quantized_is_taken(tiny_chat_base: Path, tmp_path: Path) -> None:
    check_base(str(_with_config(tiny_chat_base, tmp_path, {"quantization_config": None})))


@pytest.mark.parametrize("config", [{"quantization_config": {"quant_method": "fp8"}}], ids=["fp8"])
def test_float_weights_whose_config_says_quantized_are_told_apart(
    config: dict[str, Any], tiny_chat_base: Path, tmp_path: Path
) -> None:
    folder = _with_config(tiny_chat_base, tmp_path, config)
    with pytest.raises(InputError, match="says that its weights are quantized, by FP8, but they are floats") as refused:
        check_base(str(folder))
    assert "take quantization_config out of config.json" in str(refused.value.hint)


def test_a_folder_without_a_tokenizer_is_refused_at_once(tiny_chat_base: Path, tmp_path: Path) -> None:
    folder = _with_config(tiny_chat_base, tmp_path, {})
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match="tokenizer.json can't be read as JSON"):
        check_base(str(folder))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(InputError, match="has no tokenizer .*download all files of the model"):
        check_base(str(folder))


def test_a_damaged_file_of_weights_is_refused(tiny_chat_base: Path, tmp_path: Path) -> None:
    folder = _with_config(tiny_chat_base, tmp_path, {})
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:100_000])
    with pytest.raises(InputError, match="model.safetensors is damaged"):
        resolve_base(str(folder))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_size": 32}, "embed_tokens.weight is 49152 x 32 by it, and 49152 x 64 in the weights"),
        ({"num_hidden_layers": 5}, "it has 5 of model.layers, and the weights have 2"),
        ({"num_attention_heads": "four"}, "transformers makes no model of .*config.json"),
        ({"model_type": None}, "transformers has none of type 'None'"),
    ],
    ids=["width", "layers", "no number", "no type"],
)
def test_a_config_of_another_model_is_refused_before_anything_is_converted(
    changes: dict[str, Any], said: str, tiny_chat_base: Path, tmp_path: Path
) -> None:
    folder = _with_config(tiny_chat_base, tmp_path, changes)
    for look in (resolve_base, check_new_base):
        with pytest.raises(InputError, match=said):
            look(str(folder))


def test_a_hub_checkpoint_is_refused_before_its_weights_are_fetched(
    tiny_chat_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    folder = _with_config(tiny_chat_base, tmp_path, {"quantization_config": {"quant_method": "fp8"}})
    for weights in folder.glob("*.safetensors"):
        weights.unlink()
    fetched: list[Any] = []

    def snapshot(name: str, *, allow_patterns: list[str], **_: Any) -> str:
        fetched.append(allow_patterns)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    with pytest.raises(InputError, match="the base owner/model-fp8 is quantized already, by FP8"):
        resolve_base("owner/model-fp8")
    assert fetched == [["config.json", "README.md"]]


@pytest.mark.parametrize(
    ("kind", "architecture"),
    [
        ("gpt2", "GPT2LMHeadModel"),
        ("bloom", "BloomForCausalLM"),
        ("llama", "LlamaForCausalLM"),
        ("llama", None),
        ("smolvlm", "SmolVLMForConditionalGeneration"),
    ],
)
def test_a_language_model_is_known_by_its_type(kind: str, architecture: str | None, tmp_path: Path) -> None:
    config = {"model_type": kind} | ({"architectures": [architecture]} if architecture else {})
    (tmp_path / "config.json").write_text(json.dumps(config))
    check_architecture(tmp_path)


@pytest.mark.parametrize(
    ("kind", "architecture", "said"),
    [
        ("bert", "BertForMaskedLM", "no causal language model but BertForMaskedLM"),
        ("llama", "LlamaForSequenceClassification", "but LlamaForSequenceClassification"),
        ("t5", "T5ForConditionalGeneration", "transformers has none of type 't5'"),
        ("nobodys", "NobodysForCausalLM", "transformers has none of type 'nobodys'"),
    ],
)
def test_what_is_none_is_told_by_its_type(kind: str, architecture: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, "architectures": [architecture]}))
    with pytest.raises(InputError, match=said):
        check_architecture(tmp_path)


def test_a_gpt2_is_a_base(tiny_chat_base: Path, tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=49152, n_embd=32, n_layer=1, n_head=2, n_positions=64))
    folder = _save(model, tiny_chat_base, tmp_path / "tiny-gpt2")
    assert resolve_base(str(folder)).family.startswith("tiny-gpt2-")


def _with_config(base: Path, folder: Path, changes: dict[str, Any]) -> Path:
    made = folder / "changed"
    shutil.copytree(base, made)
    config = json.loads((made / "config.json").read_text())
    (made / "config.json").write_text(json.dumps(config | changes))
    return made
