"""Encoder and connector of an image base as llama.cpp's projector file (mmproj), the same for all adapters."""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path

from edgekit_exporters.base import Base
from edgekit_exporters.cache import cache_folder, cached
from edgekit_exporters.conversion.converters import CONVERSION, convert
from edgekit_exporters.gguf.metadata import rewrite_metadata
from edgekit_runtime.errors import InputError, UsageError
from edgekit_runtime.formats.adapter import KEY_FAMILY
from edgekit_runtime.hints import did_you_mean

log = logging.getLogger(__name__)

PROJECTOR_TYPES = ("F16", "Q8_0", "BF16", "F32")


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
    target = cache_folder("bases", base.key) / f"mmproj-{float_type}-{CONVERSION}.gguf"
    return cached(target, lambda temporary: _convert(base, float_type, temporary))


def _convert(base: Base, float_type: str, destination: Path) -> None:
    log.info("making the projector of %s at %s (once)", base.name, float_type)
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".mmproj-") as scratch:
        assert base.vision is not None  # checked by projector_gguf
        made, folder = Path(scratch, "mmproj.gguf"), base.vision
        if _is_pixtral(folder):
            folder = Path(scratch, "staged")
            _stage_pixtral(base.vision, folder)
        convert(folder, made, "--mmproj", "--outtype", float_type.lower())
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
