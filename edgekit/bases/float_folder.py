"""Hugging Face folders as bases: float weights of a causal language model, all of them there, with a tokenizer."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgekit_exporters.hf.codeless import CONFIG_FILE, TOKENIZER
from edgekit_exporters.hf.plain_files import check_plain_file, read_json
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
_FLOATS = ("F64", "F32", "F16", "BF16")  # as safetensors names them
# A tokenizer is in one of these, whoever has made it.
_TOKENIZERS = (TOKENIZER, "*.model", "vocab.json", "vocab.txt", "tekken.json")
_LAYER = re.compile(r"(.*?\.)(\d+)\.")  # of a parameter's name
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
    kinds = {kind for kind, _ in stored_weights(folder).values()}
    if kinds and kinds <= set(_FLOATS):
        raise InputError(
            f"{CONFIG_FILE} of the base {name} says that its weights are quantized, by {named}, but they are floats",
            f"take {' and '.join(key for key in _QUANTIZED if config.get(key)) or 'that'} out of {CONFIG_FILE}"
            " if the weights are right",
        )
    original = _original(folder)
    raise InputError(
        f"the base {name} is quantized already, by {named}, and edgekit starts from float weights",
        f"give the checkpoint that it was made from, base: {original}"
        if original
        else "give the original checkpoint in bf16, fp16 or fp32, or a GGUF of the model",
    )


def check_tokenizer(folder: Path) -> None:
    """Refuse a folder without a tokenizer.

    Raises:
        InputError: it has none, or its tokenizer.json can't be read.
    """
    if not any(path for pattern in _TOKENIZERS for path in folder.glob(pattern)):
        raise InputError(
            f"{folder} has no tokenizer (no {TOKENIZER}, tokenizer.model or vocab.json)",
            "download all files of the model, not its weights alone",
        )
    if (folder / TOKENIZER).exists():
        read_json(folder / TOKENIZER)


def stored_weights(folder: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type (as safetensors names it) and shape of each tensor in a folder; no weight is read.

    Raises:
        InputError: a file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        check_plain_file(path)
        try:
            with safe_open(path, "np") as tensors:
                for name in tensors.keys():  # noqa: SIM118  # it has no iterator
                    part = tensors.get_slice(name)
                    found[name] = (str(part.get_dtype()), tuple(part.get_shape()))
        except SafetensorError as error:
            raise InputError(f"{path} is damaged ({error})", "download the model again") from None
    return found


@functools.lru_cache(maxsize=8)
def check_described(folder: Path) -> None:
    """Refuse a config.json that describes another model than the weights beside it.

    Looked at are the shapes of parameters that both have, and how many layers there are: transformers fills up what is
    missing with random values.  What stands under other names in the files than in the model is left to loading it.

    Raises:
        InputError: it does, or transformers makes no model of it.
    """
    from huggingface_hub.errors import StrictDataclassError

    from edgekit_exporters.hf.float_model import skeleton

    unusable = (ValueError, TypeError, KeyError, AttributeError, RuntimeError, ArithmeticError, StrictDataclassError)
    config = folder / CONFIG_FILE
    try:
        parameters = {name: tuple(value.shape) for name, value in skeleton(folder).state_dict().items()}
    except unusable as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"transformers makes no model of {config} ({reason})", "download the model again") from None
    stored = {name: shape for name, (_, shape) in stored_weights(folder).items()}
    mend = f"put the {CONFIG_FILE} of these weights there, or download the model again"
    for name in sorted(parameters.keys() & stored):
        if parameters[name] != stored[name]:
            problem = f"{config} is of another model: {name} is {_sizes(parameters[name])} by it"
            raise InputError(f"{problem}, and {_sizes(stored[name])} in the weights", mend)
    described, there = _last_layers(parameters), _last_layers(stored)
    for place in described.keys() & there:
        if described[place] > there[place]:
            problem = f"{config} is of another model: it has {described[place] + 1} of {place.rstrip('.')}"
            raise InputError(f"{problem}, and the weights have {there[place] + 1}", mend)


def _last_layers(names: Iterable[str]) -> dict[str, int]:
    """The largest number of each row of layers."""
    found: dict[str, int] = {}
    for match in filter(None, map(_LAYER.match, names)):
        found[match[1]] = max(found.get(match[1], 0), int(match[2]))
    return found


def _sizes(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a number"


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
