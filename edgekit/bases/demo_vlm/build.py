"""The demo image model put together: SmolLM2-135M from its package, and the encoder and connector of this one.

The architecture is SmolVLM's (Idefics3): pixels -> SigLIP-style encoder -> 4 x 4 patches side by side -> one linear
layer -> 9 embeddings that the text model reads in the place of tokens.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgekit.bases.demo_vlm.parts import SIZE
from edgekit_exporters.cache import cache_folder, cached
from edgekit_runtime.formats.bundle import file_digest

WEIGHTS = Path(__file__).with_name("vision.safetensors")  # made by benchmarks/pretrain_demo_vlm.py
NAME = "demo-vlm"
PATCH, SCALE = 8, 4
WIDTH, LAYERS, HEADS = 96, 3, 4
IMAGE_TOKEN = "<image>"
# What llama.cpp and transformers put around an image of this architecture; SIZE allows one tile.
ADDED_TOKENS = (IMAGE_TOKEN, "<fake_token_around_image>", "<global-img>", "<row_1_col_1>")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PREPROCESSOR = {
    "image_processor_type": "SmolVLMImageProcessor",
    "processor_class": "SmolVLMProcessor",
    "do_convert_rgb": True,
    "do_image_splitting": True,
    "do_normalize": True,
    "do_pad": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "max_image_size": {"longest_edge": SIZE},
    "resample": 1,
    "rescale_factor": 1 / 255,
    "size": {"longest_edge": SIZE},
}


def demo_vlm_folder(text: Path) -> Path:
    """The Hugging Face folder, from the cache; made in a few seconds the first time.

    Args:
        text: folder of SmolLM2-135M-Instruct.
    """
    target = cache_folder("unpacked") / f"{NAME}-{text.name}-{file_digest(WEIGHTS)[:12]}"
    return cached(target, lambda temporary: _build(text, temporary))


def _build(text: Path, destination: Path) -> None:
    from safetensors.torch import load_file

    model, tokenizer = assemble(text)
    model.load_state_dict({name: value.float() for name, value in load_file(WEIGHTS).items()}, strict=False)
    save(model, tokenizer, destination)


def save(model: Any, tokenizer: Any, destination: Path) -> None:
    """Write a folder that transformers and llama.cpp's converter read."""
    model.save_pretrained(destination)
    tokenizer.save_pretrained(destination)
    (destination / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR, indent=1))


def assemble(text: Path) -> tuple[Any, Any]:
    """The model with a fresh encoder and connector, and its tokenizer.

    The text model gets four more tokens; their embeddings are the mean of all others, and nothing else of it changes.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, SmolVLMConfig, SmolVLMForConditionalGeneration

    tokenizer: Any = AutoTokenizer.from_pretrained(text, trust_remote_code=False)
    known = len(tokenizer)
    tokenizer.add_tokens(list(ADDED_TOKENS), special_tokens=True)
    tokenizer.chat_template = TEMPLATE
    language: Any = AutoModelForCausalLM.from_pretrained(
        text, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
    )
    language.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=8, mean_resizing=False)
    rows = language.get_input_embeddings().weight.data
    rows[known:] = rows[:known].mean(0)
    config = SmolVLMConfig(
        text_config=language.config.to_dict(),
        vision_config={
            "hidden_size": WIDTH,
            "intermediate_size": 4 * WIDTH,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "image_size": SIZE,
            "patch_size": PATCH,
        },
        scale_factor=SCALE,
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model: Any = SmolVLMForConditionalGeneration(config).float()
    model.model.text_model.load_state_dict(language.model.state_dict())
    model.tie_weights()
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids("<|im_end|>")
    return model, tokenizer
