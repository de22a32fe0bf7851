"""Tiny image models of random weights, over the demo base's tokenizer, in the form that hubs have them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from edgekit.bases.demo_vlm.build import ADDED_TOKENS, PREPROCESSOR, TEMPLATE
from edgekit_exporters.base import Base
from tests.adapters import save_random_lora

TILE, LONGEST = 32, 64  # pixels: up to 2 x 2 tiles, and the whole image
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}
ENCODER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}

DEEPER = {"num_hidden_layers": 3}  # llama.cpp's converter counts Pixtral's two connector layers like the encoder's


@dataclass(frozen=True)
class Model:
    """``folder`` in transformers' form, ``bundle`` in the device's."""

    folder: Path
    base: Base
    bundle: Path


def make_model(name: Path | str, scratch: Path, quantization: str = "F32", *, std: float = 0.3) -> Model:
    """A bundle of an image model, with adapters ``one`` and ``two`` of random weights as wide as ``std``."""
    from edgekit.bases.resolve import resolve_base
    from edgekit_exporters.bundle import ANY_ISA, BundlePlan, write_bundle
    from edgekit_exporters.gguf.adapter import AdapterSource
    from edgekit_exporters.gguf.base import gguf_from_folder
    from edgekit_exporters.gguf.projector import projector_gguf

    base = resolve_base(str(name))
    text = scratch / "model.gguf"
    gguf_from_folder(base.folder, text, quantization)
    adapters = []
    for adapter in ("one", "two"):
        save_random_lora(_text_model(base), scratch / adapter, std=std, r=4, target_modules="all-linear")
        adapters.append(AdapterSource(adapter, "1", scratch / adapter, system=f"You are {adapter}."))
    plan = BundlePlan(
        name="tiny",
        version="1",
        task="caption",
        base=base,
        base_file=text,
        projector=projector_gguf(base, "F32"),
        merged=[],
        adapters=adapters,
        default_adapter=None,
        isa=ANY_ISA,
    )
    write_bundle(plan, scratch / "bundle")
    assert base.vision is not None
    return Model(base.vision, base, scratch / "bundle")


def _text_model(base: Base) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(base.folder)


@dataclass(frozen=True)
class Geometry:
    """How images are cut: pixels of a tile, of the longer side after scaling, of a patch; patches joined on a side."""

    tile: int
    longest: int
    patch: int
    scale: int


TINY = Geometry(TILE, LONGEST, patch=8, scale=2)  # 4 embeddings a tile
PUBLISHED = Geometry(512, 2048, patch=16, scale=4)  # that of SmolVLM: 64 embeddings a tile, up to 4 x 4 of them


def save_smolvlm(
    tokenizer_folder: Path, folder: Path, geometry: Geometry = TINY, architecture: str = "SmolVLM"
) -> Path:
    """SmolVLM, or under its older name (``architecture``) Idefics3."""
    import transformers

    sides = range(1, geometry.longest // geometry.tile + 1)
    rows = [f"<row_{row}_col_{column}>" for row in sides for column in sides]
    tokenizer = _tokenizer(tokenizer_folder, [*ADDED_TOKENS[:3], *rows], TEMPLATE)
    config = getattr(transformers, f"{architecture}Config")(
        text_config={"model_type": "llama", "vocab_size": len(tokenizer), **TEXT, **_ends(tokenizer)},
        vision_config={"image_size": geometry.tile, "patch_size": geometry.patch, **ENCODER},
        scale_factor=geometry.scale,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        tie_word_embeddings=True,
    )
    sizes = {"size": {"longest_edge": geometry.longest}, "max_image_size": {"longest_edge": geometry.tile}}
    model = getattr(transformers, f"{architecture}ForConditionalGeneration")
    return _save(model, config, tokenizer, PREPROCESSOR | sizes, folder)


def save_pixtral(tokenizer_folder: Path, folder: Path) -> Path:
    """LLaVA with Pixtral's encoder: images of any size, a row of patches after the other."""
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    tokenizer = _tokenizer(
        tokenizer_folder, ["[IMG]", "[IMG_BREAK]", "[IMG_END]"], TEMPLATE.replace("<image>", "[IMG]")
    )
    config = LlavaConfig(
        text_config={"model_type": "llama", "vocab_size": len(tokenizer), **TEXT, **_ends(tokenizer)},
        vision_config={
            "model_type": "pixtral",
            "image_size": 128,
            "patch_size": 16,
            "head_dim": 16,
            **ENCODER,
            **DEEPER,
        },
        image_token_index=tokenizer.convert_tokens_to_ids("[IMG]"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        projector_hidden_act="gelu",
        tie_word_embeddings=False,
    )
    preprocessor = {
        "image_processor_type": "PixtralImageProcessor",
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "patch_size": {"height": 16, "width": 16},
        "size": {"longest_edge": 128},
    }
    return _save(LlavaForConditionalGeneration, config, tokenizer, preprocessor, folder)


def picture_file(path: Path, size: tuple[int, int], seed: int = 0) -> Path:
    """A smooth coloured image."""
    import random

    chosen = random.Random(seed)
    small = Image.new("RGB", (5, 4))
    small.putdata([tuple(chosen.randrange(256) for _ in range(3)) for _ in range(20)])
    small.resize(size, Image.Resampling.BICUBIC).save(path)
    return path


def _tokenizer(folder: Path, added: list[str], template: str) -> Any:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(added, special_tokens=True)
    tokenizer.chat_template = template
    return tokenizer


def _ends(tokenizer: Any) -> dict[str, int]:
    return {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}


def _save(architecture: Any, config: Any, tokenizer: Any, preprocessor: dict[str, Any], folder: Path) -> Path:
    import torch

    torch.manual_seed(0)  # before the model is made: its biases are drawn then
    model = architecture(config)
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2:  # wide enough that it prefers some tokens over others
            torch.nn.init.normal_(parameter, std=0.4 if "embed_tokens" in name else 0.15)
    model.tie_weights()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder
