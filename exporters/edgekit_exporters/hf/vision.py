"""The text model of a model that reads images, as a folder of its own.

Adapters are trained on the text model alone and exported with it, as those of any base.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from edgekit_exporters.base import settings_digest
from edgekit_exporters.cache import cache_folder, cached
from edgekit_runtime.errors import InputError

log = logging.getLogger(__name__)

# What transformers' image models call their text model.
TEXT_MODELS = ("language_model", "text_model")


def reads_images(folder: Path) -> bool:
    """Whether a Hugging Face folder holds a model that reads images."""
    return "vision_config" in json.loads((folder / "config.json").read_text(encoding="utf-8"))


def text_part(folder: Path, family: str) -> Path:
    """The text model of an image model, as a Hugging Face folder with the same tokenizer; made once.

    Raises:
        InputError: transformers can't load it, or its text model is none that stands alone.
    """
    target = cache_folder("text-parts", settings_digest(folder)) / family  # the name gets into what is made of it
    return cached(target, lambda temporary: _write_text_part(folder, temporary))


def _write_text_part(folder: Path, destination: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

    log.info("taking the text model out of %s (once)", folder.name)
    try:
        whole: Any = AutoModelForImageTextToText.from_pretrained(
            folder, trust_remote_code=False, use_safetensors=True, dtype="auto"
        )
        output = whole.get_output_embeddings().weight.data
        config = whole.config.get_text_config()
        # The whole model's config decides, and the text model's own may say otherwise.
        config.tie_word_embeddings = output.data_ptr() == whole.get_input_embeddings().weight.data_ptr()
        with torch.device("meta"):
            text: Any = AutoModelForCausalLM.from_config(config, trust_remote_code=False, dtype=whole.dtype)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"transformers can't take the text model out of {folder} ({str(error).splitlines()[0]})",
            "use a SmolVLM, Idefics3, LLaVA or Pixtral model",
        ) from None
    inner = next((part for name in TEXT_MODELS if (part := getattr(whole.model, name, None)) is not None), None)
    if inner is None:
        raise InputError(f"{folder} keeps its text model where edgekit doesn't find it", "use a SmolVLM or LLaVA model")
    state = {f"model.{name}": value for name, value in inner.state_dict().items()}
    if not text.config.tie_word_embeddings:
        state["lm_head.weight"] = output
    text.load_state_dict(state, assign=True, strict=False)  # a tied output matrix has no entry
    text.tie_weights()
    text.generation_config = whole.generation_config
    text.save_pretrained(destination)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    template = folder / "chat_template.json"  # where older processors keep it
    if not tokenizer.chat_template and template.is_file():
        tokenizer.chat_template = json.loads(template.read_text(encoding="utf-8"))["chat_template"]
    tokenizer.save_pretrained(destination)
