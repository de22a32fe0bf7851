"""Bases without what could run: a model's folder may bring Python code and pickles, and edgekit uses neither.

transformers runs a folder's code where its JSON files ask for it (``auto_map``) and the caller, or whoever sits at the
terminal, agrees; llama.cpp's converters agree by themselves.  So such a folder is never handed on: those get one of
links to its data, with JSON files that ask for nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from edgekit_exporters.cache import cache_folder, cached
from edgekit_exporters.hf.plain_files import ADAPTER_CONFIG
from edgekit_runtime.errors import InputError, shown

CONFIG_FILE = "config.json"
TOKENIZER_CONFIG, TOKENIZER = "tokenizer_config.json", "tokenizer.json"
CODE_KEY = "auto_map"
DATA = (".json", ".safetensors", ".model", ".jinja", ".txt")  # what a base is made of
# Vocabularies and lists of tensors: large, and nobody looks for code in them.
_PLAIN_LISTS = (TOKENIZER, "vocab.json", "added_tokens.json")
_LIST_OF_WEIGHTS = ".index.json"
_ANOTHER_MODEL = ADAPTER_CONFIG  # transformers would load the base that it names, wherever that is
_MEND = "choose a base that transformers knows: edgekit never runs the code of a base"


def without_code(folder: Path, name: str) -> Path:
    """A base's folder, or one in the cache with links to its data alone where it brings more.

    Args:
        folder: a Hugging Face model folder.
        name: what the user calls the base.

    Raises:
        InputError: transformers doesn't know the model or its tokenizer, so that it can't be used without its code.
    """
    if not carries_code(folder) and not (folder / _ANOTHER_MODEL).exists():
        return folder
    _check_native(folder, name)
    state = "".join(f"{path}:{path.stat().st_size}:{path.stat().st_mtime_ns}" for path in _data(folder))
    key = hashlib.sha256(f"{folder.resolve()}:{state}".encode()).hexdigest()[:32]
    return cached(cache_folder("bases-without-code", key) / folder.name, lambda made: _copy(folder, made))


def carries_code(folder: Path) -> bool:
    """Whether a folder has anything that could run: code, pickles, or JSON files that ask for code.

    Raises:
        InputError: one of its JSON files can't be read.
    """
    others = [path for path in folder.iterdir() if path.suffix in (".py", ".bin", ".pt", ".pth", ".pkl", ".ckpt")]
    if others or (folder / "custom_generate").exists():
        return True
    return any(asks_for_code(_read(path)) for path in _data(folder) if _is_settings(path))


def asks_for_code(document: Any) -> bool:
    """Whether a JSON document names Python code to be run."""
    if isinstance(document, dict):
        return CODE_KEY in document or any(map(asks_for_code, document.values()))
    return isinstance(document, list) and any(map(asks_for_code, document))


def link(source: Path, target: Path) -> None:
    """Let a file be found under another name; a copy where the system has no links."""
    for make in (os.symlink, os.link, shutil.copyfile):
        try:
            make(source.resolve(), target)
            return
        except OSError:
            if make is shutil.copyfile:
                raise


def _data(folder: Path) -> list[Path]:
    return [
        path
        for path in sorted(folder.iterdir())
        if path.suffix in DATA and path.is_file() and path.name != _ANOTHER_MODEL
    ]


def _is_settings(path: Path) -> bool:
    return path.suffix == ".json" and path.name not in _PLAIN_LISTS and not path.name.endswith(_LIST_OF_WEIGHTS)


def _copy(folder: Path, destination: Path) -> None:
    destination.mkdir()
    for path in _data(folder):
        document = _read(path) if _is_settings(path) else None
        if asks_for_code(document):
            text = json.dumps(_stripped(document), indent=2, ensure_ascii=False)
            (destination / path.name).write_text(text, encoding="utf-8")
        else:
            link(path, destination / path.name)


def _stripped(document: Any) -> Any:
    if isinstance(document, dict):
        return {key: _stripped(value) for key, value in document.items() if key != CODE_KEY}
    return [_stripped(each) for each in document] if isinstance(document, list) else document


def _check_native(folder: Path, name: str) -> None:
    """Check that transformers has a class of its own for what the JSON files have code for."""
    from transformers import CONFIG_MAPPING

    config, tokenizer = (
        _read(folder / file) if (folder / file).is_file() else {} for file in (CONFIG_FILE, TOKENIZER_CONFIG)
    )
    if asks_for_code(config):
        kind = config.get("model_type") if isinstance(config, dict) else None
        if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
            raise InputError(
                f"the base {name} needs code of its own ({CODE_KEY} in {CONFIG_FILE}): "
                f"transformers has no model of type {shown(str(kind))}",
                _MEND,
            )
    if asks_for_code(tokenizer) and not (folder / TOKENIZER).is_file() and not _knows_tokenizer(tokenizer):
        raise InputError(f"the base {name} needs code of its own ({CODE_KEY} in {TOKENIZER_CONFIG})", _MEND)


def _knows_tokenizer(document: Any) -> bool:
    import transformers

    kind = document.get("tokenizer_class") if isinstance(document, dict) else None
    return isinstance(kind, str) and kind.isidentifier() and hasattr(transformers, kind)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} can't be read ({error})", "download the model again") from None
