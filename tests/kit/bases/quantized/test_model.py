"""A packed model trains with PEFT as the float model of the same weights does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model

from edgekit.bases.quantized.linear import QuantizedEmbedding, QuantizedLinear
from edgekit.bases.quantized.model import dequantized_state, load_quantized
from edgekit_runtime.errors import InputError, UsageError

Write = Callable[..., tuple[Path, Path, Any]]

LAYERS = 7 * 2  # q, k, v, o, gate, up, down of two layers
SIMPLE = ("F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL")
SUPER_BLOCKS = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS")
# What llama.cpp's Q4_K_M makes of a model: some matrices better than others, odd row sizes in other types.
MIXED = {"ffn_down.weight": "Q6_K", "attn_v.weight": "Q5_0", "token_embd.weight": "Q8_0", "ffn_gate.weight": "Q4_K"}
WIDE = {"hidden_size": 256, "intermediate_size": 256, "head_dim": 64}


def float_model(path: Path, folder: Path) -> Any:
    """The transformers model with the float weights that the blocks stand for."""
    config = transformers.AutoConfig.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    result = model.load_state_dict(dequantized_state(path, config), strict=False)
    assert not result.unexpected_keys
    return model.eval()


def with_lora(model: Any, **options: Any) -> Any:
    torch.manual_seed(1)
    settings: dict[str, Any] = {"r": 4, "target_modules": "all-linear", "init_lora_weights": False} | options
    return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings))


def gradients(model: Any, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(input_ids=ids, labels=ids).loss.backward()
    return {name: each.grad.clone() for name, each in model.named_parameters() if each.requires_grad}


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(0, 96, (2, 12), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("types", "options"),
    [({"weight": kind}, {}) for kind in SIMPLE]
    + [({"weight": kind}, WIDE) for kind in SUPER_BLOCKS]
    + [(MIXED, WIDE), ({"weight": "Q4_0"}, {"tie_word_embeddings": True})],
    ids=[*SIMPLE, *SUPER_BLOCKS, "mixed", "tied"],
)
def test_logits_and_adapter_gradients_equal_the_float_model(
    types: dict[str, str], options: dict[str, Any], write_model: Write, ids: torch.Tensor
) -> None:
    path, folder, _ = write_model("llama", types, **options)
    packed, dense = load_quantized(path, folder, dtype=torch.float32), float_model(path, folder)
    with torch.no_grad():
        torch.testing.assert_close(packed(ids).logits, dense(ids).logits, rtol=1e-4, atol=1e-5)
    packed, dense = with_lora(packed), with_lora(dense)
    assert [name for name, _ in packed.named_parameters() if "lora" in name] == [
        name for name, _ in dense.named_parameters() if "lora" in name
    ]
    expected = gradients(dense, ids)
    for name, gradient in gradients(packed, ids).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-5)


def test_peft_wraps_every_linear_layer_but_the_output(write_model: Write) -> None:
    path, folder, _ = write_model("llama", {"weight": "Q4_0"})
    model = with_lora(load_quantized(path, folder, dtype=torch.float32))
    wrapped = [module for module in model.modules() if type(module).__module__ == "peft.tuners.lora.layer"]
    assert len(wrapped) == LAYERS
    assert all(isinstance(module.base_layer, QuantizedLinear) for module in wrapped)
    assert {type(module).__name__ for module in wrapped} == {"Linear"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_lowers_the_loss_and_the_adapter_fits_the_float_model(
    dtype: torch.dtype, checkpointing: bool, write_model: Write, ids: torch.Tensor, tmp_path: Path
) -> None:
    path, folder, _ = write_model("llama", {"weight": "Q4_0"})
    model = load_quantized(path, folder, dtype=dtype)
    if checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    model = with_lora(model, init_lora_weights=True).train()
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=2e-2)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] * 0.9
    model.eval().save_pretrained(str(tmp_path / "adapter"))
    loaded = PeftModel.from_pretrained(float_model(path, folder), str(tmp_path / "adapter")).eval()
    tolerance = 1e-4 if dtype == torch.float32 else 0.5
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, model(ids).logits.float(), rtol=tolerance, atol=tolerance)


def test_gradient_checkpointing_changes_no_gradient(write_model: Write, ids: torch.Tensor) -> None:
    path, folder, _ = write_model("llama", {"weight": "Q4_0"})
    model = with_lora(load_quantized(path, folder, dtype=torch.float32)).train()
    plain = gradients(model, ids)
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
    for name, gradient in gradients(model, ids).items():
        torch.testing.assert_close(gradient, plain[name])


def test_dora_sees_the_real_norms(write_model: Write, ids: torch.Tensor) -> None:
    path, folder, _ = write_model("llama", {"weight": "Q4_0"})
    models = [load_quantized(path, folder, dtype=torch.float32), float_model(path, folder)]
    packed, expected = (gradients(with_lora(model, use_dora=True), ids) for model in models)
    for name, gradient in packed.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("safe_merge", [False, True])
def test_merging_into_packed_weights_is_refused(safe_merge: bool, write_model: Write) -> None:
    path, folder, _ = write_model("llama", {"weight": "Q4_0"})
    with pytest.raises(UsageError, match=r"nothing can be merged into them.*float model"):
        with_lora(load_quantized(path, folder, dtype=torch.float32)).merge_and_unload(safe_merge=safe_merge)


def test_a_tied_output_shares_the_embeddings_blocks(write_model: Write) -> None:
    path, folder, _ = write_model("llama", {"weight": "Q4_0"}, tie_word_embeddings=True)
    model = load_quantized(path, folder, dtype=torch.float32)
    assert isinstance(model.get_input_embeddings(), QuantizedEmbedding)
    assert model.lm_head.blocks is model.model.embed_tokens.blocks


def test_no_float_copy_of_a_matrix_is_kept(write_model: Write) -> None:
    path, folder, _ = write_model("llama", {"weight": "Q4_0"})
    model = load_quantized(path, folder, dtype=torch.float32)
    floats = [each for each in (*model.parameters(), *model.buffers()) if each.is_floating_point() and each.ndim > 1]
    assert not floats
    assert not [each for each in (*model.parameters(), *model.buffers()) if each.is_meta]


def test_generation_with_a_cache_gives_the_float_models_tokens(write_model: Write, ids: torch.Tensor) -> None:
    path, folder, _ = write_model("llama", {"weight": "Q4_0"})
    options = {"max_new_tokens": 16, "do_sample": False}
    packed = load_quantized(path, folder, dtype=torch.float32).generate(ids[:1], **options)
    assert packed.tolist() == float_model(path, folder).generate(ids[:1], **options).tolist()


def test_the_folder_of_another_model_is_refused(write_model: Write) -> None:
    path, folder, _ = write_model("llama")
    for change, message in (
        ({"model_type": "qwen2"}, "is a llama, the Hugging Face folder a qwen2"),
        ({"intermediate_size": 96}, r"ffn_gate.weight is \(128, 64\) in the GGUF file"),
        ({"num_hidden_layers": 1}, "has tensors that llama has no place for: blk.1"),
        ({"num_hidden_layers": 3}, "has no tensor for model.layers.2"),
        ({"tie_word_embeddings": True}, "no place for: output.weight"),
    ):
        config = transformers.AutoConfig.from_pretrained(folder).to_dict() | change
        other = folder.parent / "other"
        transformers.AutoConfig.for_model(**config).save_pretrained(other)
        with pytest.raises(InputError, match=message):
            load_quantized(path, other, dtype=torch.float32)


def test_a_missing_tensor_is_named(write_model: Write) -> None:
    path, folder, _ = write_model("llama", drop="blk.1.ffn_up.weight")
    with pytest.raises(InputError, match=r"has no tensor for model.layers.1.mlp.up_proj.weight"):
        load_quantized(path, folder, dtype=torch.float32)


@pytest.mark.model
def test_the_demo_base_answers_as_its_float_weights_do(demo_gguf: Path, demo_folder: Path) -> None:
    packed = load_quantized(demo_gguf, demo_folder, dtype=torch.float32)
    dense = float_model(demo_gguf, demo_folder)
    ids = torch.randint(0, 40_000, (1, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(packed(ids).logits, dense(ids).logits, rtol=1e-5, atol=1e-4)
    options = {"max_new_tokens": 8, "do_sample": False}
    assert packed.generate(ids, **options).tolist() == dense.generate(ids, **options).tolist()
