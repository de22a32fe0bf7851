"""Chat templates of Hugging Face folders: what bundles carry of them, and bases with another one."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgekit_exporters.base import SETTINGS, Base
from edgekit_exporters.cache import cache_folder, cached
from edgekit_exporters.hf.known_templates import KNOWN_TEMPLATES, advice, fitting
from edgekit_runtime.errors import InputError
from edgekit_runtime.hints import did_you_mean
from edgekit_runtime.prompts.template import ChatTemplate, TemplateFacts

TEMPLATE_FILE = "chat_template.jinja"
TOKENIZER_CONFIG = "tokenizer_config.json"
# Where else a folder may keep templates, which would stand beside another one, or before it.
OTHER_PLACES = ("chat_template.json",)
TEMPLATE_FOLDER = "additional_chat_templates"  # several by name, in today's transformers
DIGITS = 12


def template_facts(folder: Path) -> TemplateFacts:
    """Templates and special tokens of a folder.

    Raises:
        InputError: no tokenizer there, or one without a chat template.
    """
    return tokenizer_facts(load_tokenizer(folder), folder)


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder.

    Raises:
        InputError: there is none.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{folder} has no usable tokenizer ({reason})", "download the model again") from None


def tokenizer_facts(tokenizer: Any, folder: Path) -> TemplateFacts:
    """The same of a loaded tokenizer; ``folder`` is for the error.

    Raises:
        InputError: it has no chat template.
    """
    if not tokenizer.chat_template:
        raise no_template(str(folder), fitting(_is_token(tokenizer), has_eos=tokenizer.eos_token is not None))
    return TemplateFacts.of(tokenizer.chat_template, tokenizer.special_tokens_map)


def no_template(base: str, fits: Sequence[str]) -> InputError:
    """What to say of a base without a chat template that the known ones in ``fits`` fit."""
    return InputError(f"{base} has no chat template", advice(fits))


def with_template(base: Base, template: Path | str) -> Base:
    """``base`` with another chat template in the place of its own, or of none, as a folder of links in the cache.

    Args:
        base: any.
        template: a file, or the name of a known template.

    Raises:
        InputError: as :func:`template_source`, or the tokenizer lacks tokens that the known template writes.
    """
    source = template_source(template)
    if isinstance(template, str):
        tokenizer = load_tokenizer(base.folder)
        check_fits(template, base.name, _is_token(tokenizer), has_eos=tokenizer.eos_token is not None)
    digest = hashlib.sha256(source.encode()).hexdigest()[:DIGITS]
    target = cache_folder("templated", base.key, digest) / base.folder.name
    if target.exists() and not all(each.exists() for each in target.iterdir()):  # what it links to has moved
        shutil.rmtree(target)
    return replace(base, folder=cached(target, lambda folder: _stage(base.folder, source, folder)), stock=base)


def check_fits(name: str, base: str, is_token: Callable[[str], bool], *, has_eos: bool) -> None:
    """Refuse a known template whose tokens a tokenizer doesn't have; see :meth:`KnownTemplate.missing`.

    Raises:
        InputError: it lacks some.
    """
    missing = KNOWN_TEMPLATES[name].missing(is_token, has_eos=has_eos)
    if missing:
        fits = fitting(is_token, has_eos=has_eos)
        raise InputError(
            f"chat_template: {name} needs {', '.join(missing)}, which the tokenizer of {base} doesn't have",
            f"use one that fits: {', '.join(fits)}, or a file" if fits else "write a template of your own",
        )


def _is_token(tokenizer: Any) -> Callable[[str], bool]:
    def is_token(text: str) -> bool:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        return len(ids) == 1 and tokenizer.convert_ids_to_tokens(ids[0]) == text

    return is_token


def template_source(template: Path | str) -> str:
    """The text of a project's own chat template: of a file, or a known one by its name.

    Raises:
        InputError: the file can't be read, or holds no valid template.
    """
    if isinstance(template, str):
        return KNOWN_TEMPLATES[template].source
    path = template
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        hint = "correct chat_template:"
        if isinstance(error, FileNotFoundError):
            hint = f"{hint} a file, or {did_you_mean(path.name, KNOWN_TEMPLATES)}"
        raise InputError(f"the chat template {path} can't be read ({reason})", hint) from None
    try:
        ChatTemplate(source)
    except InputError as error:
        raise InputError(error.problem.replace("the base's chat template", str(path), 1), "correct the file") from None
    if not source.strip():
        raise InputError(f"the chat template {path} is empty", "write one, or take chat_template: out")
    return source


def _stage(original: Path, source: str, folder: Path) -> None:
    folder.mkdir()
    for path in original.iterdir():
        if path.is_dir() or path.name in (TEMPLATE_FILE, *OTHER_PLACES):
            continue
        if path.name == TOKENIZER_CONFIG:
            config = json.loads(path.read_text(encoding="utf-8"))
            config.pop("chat_template", None)
            (folder / path.name).write_text(json.dumps(config, indent=1, ensure_ascii=False), encoding="utf-8")
        elif path.suffix in SETTINGS:
            shutil.copyfile(path, folder / path.name)
        else:
            (folder / path.name).symlink_to(path.resolve())
    (folder / TEMPLATE_FILE).write_text(source, encoding="utf-8", newline="")
