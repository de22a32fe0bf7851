"""Models that read images: the text model as a folder of its own, and encoder and connector as a projector file.

Adapters are trained on the text model alone and exported with it, as those of any base; what reads images is the
same for all of them and stays as it is.
"""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path
from typing import Any

from edgekit_exporters.base import Base, settings_digest
from edgekit_exporters.cache import cache_folder, cached
from edgekit_exporters.gguf.converters import engine_version, run_converter
from edgekit_exporters.gguf.metadata import rewrite_metadata
from edgekit_runtime.adapter import KEY_FAMILY
from edgekit_runtime.choices import did_you_mean
from edgekit_runtime.errors import InputError, UsageError

log = logging.getLogger(__name__)

PROJECTOR_TYPES = ("F16", "Q8_0", "BF16", "F32")
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


def projector_gguf(base: Base, float_type: str = "F16") -> Path:
    """Encoder and connector of an image base as llama.cpp's mmproj file; made once, then taken from the cache.

    Raises:
        UsageError: no such type.
        InputError: a base that reads no images, or that llama.cpp can't convert.
    """
    if float_type not in PROJECTOR_TYPES:
        raise UsageError(f"no projector type is called {float_type!r}", did_you_mean(float_type, PROJECTOR_TYPES))
    if base.vision is None:
        raise InputError(f"the base {base.name} reads no images", "use one that does, demo-vlm say")
    target = cache_folder("bases", base.key) / f"mmproj-{float_type}-llama-cpp-python-{engine_version()}.gguf"
    return cached(target, lambda temporary: _convert(base, float_type, temporary))


def _convert(base: Base, float_type: str, destination: Path) -> None:
    log.info("making the projector of %s at %s (once)", base.name, float_type)
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".mmproj-") as scratch:
        assert base.vision is not None  # checked by projector_gguf
        made, folder = Path(scratch, "mmproj.gguf"), base.vision
        if _is_pixtral(folder):
            folder = Path(scratch, "staged")
            _stage_pixtral(base.vision, folder)
        arguments: list[str | Path] = [folder, "--mmproj", "--outfile", made, "--outtype", float_type.lower()]
        run_converter("convert_hf_to_gguf.py", arguments)
        rewrite_metadata(made, destination, {KEY_FAMILY: base.family})


def _is_pixtral(folder: Path) -> bool:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return bool(config["vision_config"].get("model_type") == "pixtral")


def _stage_pixtral(folder: Path, staged: Path) -> None:
    """Encoder, connector and token embeddings alone, the latter under a name that the converter doesn't skip.

    Pixtral's projector file has to hold the embedding of the token that ends a row of patches; this converter drops
    all tensors of the text model before it looks for it.
    """
    from safetensors import safe_open
    from safetensors.torch import save_file

    staged.mkdir()
    tensors = {}
    for path in folder.iterdir():
        if path.suffix != ".safetensors":
            if not path.name.endswith(".index.json"):
                (staged / path.name).symlink_to(path.resolve())
            continue
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                if name.endswith("embed_tokens.weight"):
                    tensors["model.embed_tokens.weight"] = file.get_tensor(name)
                elif "vision_tower." in name or "multi_modal_projector." in name:
                    tensors[name] = file.get_tensor(name)
    save_file(tensors, staged / "model.safetensors")
