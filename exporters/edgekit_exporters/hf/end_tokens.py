"""Which tokens end an answer of a base: training learns them, torch and devices stop at them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from edgekit_exporters.hf.templates import load_tokenizer, tokenizer_facts
from edgekit_runtime.errors import InputError
from edgekit_runtime.prompts.specials import is_control
from edgekit_runtime.prompts.template import ChatTemplate

# Texts that end a turn wherever a vocabulary has them; llama.cpp takes them so too.
TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end|>")
# Where transformers looks for ids; config.json counts where the first one isn't there.
_CONFIGS = ("generation_config.json", "config.json")
_ANSWER = "\N{SNOWMAN}"  # which no template writes itself


def folder_end_tokens(folder: Path) -> frozenset[int]:
    """As :func:`end_tokens`, of a Hugging Face folder.

    Raises:
        InputError: no tokenizer there, or one without a chat template or an end.
    """
    tokenizer = load_tokenizer(folder)
    return end_tokens(tokenizer, folder, ChatTemplate.of(tokenizer_facts(tokenizer, folder)))


def end_tokens(tokenizer: Any, folder: Path, template: ChatTemplate) -> frozenset[int]:
    """Ids of tokens that end an answer: EOS, those of generation_config.json, and what ends a turn.

    Args:
        tokenizer: transformers' one of the base.
        folder: the base's.
        template: which tells the token that ends the assistant's turns.

    Raises:
        InputError: the tokenizer has no EOS, so that nothing would end a text.
    """
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"the tokenizer in {folder} has no eos_token, so that nothing ends an answer",
            "name one of its tokens as eos_token in tokenizer_config.json",
        )
    control = set(control_tokens(tokenizer))
    by_id = {number: str(token) for number, token in tokenizer.added_tokens_decoder.items()}
    # A config that was written for another vocabulary names ids that are words here.
    listed = {number for number in _listed(folder) if by_id.get(number) in control}
    ended = _turn_end(template, control)
    texts = [text for text in (*TURN_ENDS, ended) if text is not None]
    known = {text: tokenizer.convert_tokens_to_ids(text) for text in texts}
    ids = {number for text, number in known.items() if isinstance(number, int) and number != tokenizer.unk_token_id}
    return frozenset({int(tokenizer.eos_token_id)} | listed | ids)


def control_tokens(tokenizer: Any) -> list[str]:
    """Those that llama.cpp's converters make control tokens."""
    added = tokenizer.added_tokens_decoder.values()
    return [str(each) for each in added if each.special or is_control(str(each))]


def _turn_end(template: ChatTemplate, control: set[str]) -> str | None:
    """The control token that the template writes behind an answer; None where it writes none."""
    try:
        text = template.render(
            [{"role": "user", "content": "?"}, {"role": "assistant", "content": _ANSWER}], add_generation_prompt=False
        )
    except InputError:  # it wants other messages
        return None
    behind = text.rpartition(_ANSWER)[2].lstrip() if _ANSWER in text else ""
    longest = "|".join(map(re.escape, sorted(control, key=len, reverse=True)))
    found = re.match(longest, behind) if longest else None
    return found[0] if found else None


def _listed(folder: Path) -> list[int]:
    """Ids of ``eos_token_id``, which is one or a list of them."""
    for name in _CONFIGS:
        try:
            found = json.loads((folder / name).read_text(encoding="utf-8")).get("eos_token_id")
        except (OSError, ValueError, AttributeError):
            continue
        if found is not None:
            return [each for each in (found if isinstance(found, list) else [found]) if type(each) is int]
    return []
