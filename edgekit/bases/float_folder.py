"""Hugging Face folders as bases: float weights of a causal language model, all of them there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from edgekit_exporters.hf.codeless import CONFIG_FILE
from edgekit_exporters.hf.plain_files import check_plain_file
from edgekit_runtime.errors import InputError, shown

CARD_FILE = "README.md"
INDEX_FILE = "model.safetensors.index.json"
# Keys of a config.json that tell that weights are stored quantized: today's, and that of older compressed-tensors.
_QUANTIZED = ("quantization_config", "compression_config")
# As configs name them -> as people do; what other methods are called is their name.
_METHODS = {
    "fp8": "FP8",
    "fbgemm_fp8": "FP8 (FBGEMM)",
    "gptq": "GPTQ",
    "awq": "AWQ",
    "bitsandbytes": "bitsandbytes",
    "compressed-tensors": "compressed-tensors",
    "mxfp4": "MXFP4",
}
_BASE_MODEL = re.compile(r"^base_model:[ \t]*(?:\r?\n[ \t]*-[ \t]*)?[\"']?([\w./-]+)", re.MULTILINE)


def float_weights(folder: Path, name: str) -> list[Path]:
    """The weights of a Hugging Face folder that can be a base, which the user calls ``name``.

    Raises:
        InputError: it has none, not all, or no float ones.
    """
    check_float(folder, name)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise InputError(f"{folder} has no .safetensors weights", "convert or download the model as safetensors")
    for path in weights:
        check_plain_file(path)
    index = folder / INDEX_FILE
    if index.is_file():
        missing = sorted({str(name) for name in _shards(index)} - {path.name for path in weights})
        if missing:
            raise InputError(f"{folder} has no {', '.join(missing)}", "download the model again, all files of it")
    return weights


def check_float(folder: Path, name: str) -> None:
    """Refuse a checkpoint that is quantized already: adapters need the float weights, and so do the quantizers here.

    Raises:
        InputError: it is, or there is no config.json that can be read.
    """
    config = read_config(folder)
    parts = [config, *(part for part in config.values() if isinstance(part, dict))]  # a model that reads images has two
    found = next((part[key] for part in parts for key in _QUANTIZED if part.get(key)), None)
    if found is None:
        return
    method = found.get("quant_method") if isinstance(found, dict) else None
    named = _METHODS.get(str(method), shown(str(method))) if method else "a quantizer that it doesn't name"
    original = _original(folder)
    raise InputError(
        f"the base {name} is quantized already, by {named}, and edgekit starts from float weights",
        f"give the checkpoint that it was made from, base: {original}"
        if original
        else "give the original checkpoint in bf16, fp16 or fp32, or a GGUF of the model",
    )


def check_architecture(folder: Path) -> None:
    """Refuse what transformers doesn't load as a causal language model, or one with images.

    Raises:
        InputError: it doesn't.
    """
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    )

    config = read_config(folder)
    kind, architectures = str(config.get("model_type")), config.get("architectures") or []
    tables = (MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
    classes = {name for table in tables if kind in table for name in _names(table[kind])}
    if not classes:
        raise InputError(
            f"{folder} is no causal language model: transformers has none of type {shown(kind)}",
            "choose a text generation model",
        )
    if architectures and not classes & set(map(str, architectures)):
        raise InputError(
            f"{folder} is no causal language model but {', '.join(map(str, architectures))}",
            "choose a text generation model",
        )


def read_config(folder: Path) -> dict[str, Any]:
    """A folder's config.json.

    Raises:
        InputError: there is none, or it can't be read.
    """
    path = folder / CONFIG_FILE
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{folder} is not a base model: it has no {CONFIG_FILE}",
            "give a Hugging Face model folder or a GGUF file",
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} can't be read ({error})", "download the model again") from None
    if not isinstance(config, dict):
        raise InputError(f"{path} can't be read (it is no JSON object)", "download the model again")
    return config


def _names(classes: str | tuple[str, ...]) -> tuple[str, ...]:
    return (classes,) if isinstance(classes, str) else classes


def _shards(index: Path) -> set[Any]:
    try:
        return set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{index} can't be read ({error})", "download the model again") from None


def _original(folder: Path) -> str | None:
    """What a quantized checkpoint was made from, by its model card."""
    try:
        card = (folder / CARD_FILE).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    head = re.match(r"---\r?\n(.*?)\r?\n---", card, re.DOTALL)
    found = _BASE_MODEL.search(head[1]) if head else None
    return found[1] if found else None
