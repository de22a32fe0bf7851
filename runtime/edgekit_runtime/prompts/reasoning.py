"""Reasoning in answers: where it stands, and how chat templates are told whether to ask for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekit_runtime.prompts.chat import Message, text_of
from edgekit_runtime.prompts.reasoning_tags import KNOWN_TAGS as KNOWN_TAGS
from edgekit_runtime.prompts.reasoning_tags import Tags as Tags
from edgekit_runtime.prompts.reasoning_tags import found_reasoning
from edgekit_runtime.prompts.template import REASONING, ChatTemplate

KEEP, DROP = "keep", "drop"
MODES = (KEEP, DROP)
# Variables by which published templates are told: Qwen3, SmolLM3, GLM; Granite, DeepSeek-V3.1.
SWITCHES = ("enable_thinking", "thinking")


def tags_of(template: ChatTemplate) -> Tags:
    """The tags that a template knows, else the usual ones."""
    return next((tags for tags in KNOWN_TAGS if tags.end in template.source), KNOWN_TAGS[0])


def knows_reasoning(template: ChatTemplate) -> bool:
    """Whether a template does anything about it."""
    return any(tags.end in template.source or tags.start in template.source for tags in KNOWN_TAGS) or any(
        name in template.variables for name in SWITCHES
    )


def template_arguments(template: ChatTemplate, mode: str | None) -> dict[str, bool]:
    """What a template is told so that its prompt asks for reasoning (``keep``) or for none (``drop``).

    Nothing without a mode, or to a template without a switch.
    """
    return {} if mode is None else {name: mode == KEEP for name in SWITCHES if name in template.variables}


def trained_mode(arguments: Mapping[str, Any] | None) -> str | None:
    """The mode that :func:`template_arguments` were made of; None where they say nothing of it."""
    found = [value for name, value in (arguments or {}).items() if name in SWITCHES]
    return None if not found else KEEP if found[0] else DROP


def split_reasoning(text: str) -> tuple[str, str]:
    """Reasoning and answer; reasoning that doesn't end leaves no answer.

    The start tag may be missing, as some prompts end with it; the end tag begins a line then.
    """
    found = found_reasoning(text, unbegun=True)
    if found is None:
        return "", text
    tags, end = found
    before, after = (text, "") if end < 0 else (text[:end], text[end + len(tags.end) :])
    return before.lstrip().removeprefix(tags.start).strip(), after.strip()


def answer_part(text: str) -> str:
    """What is said after the reasoning."""
    return split_reasoning(text)[1]


def take_apart(message: Message) -> tuple[str, Message]:
    """The reasoning of an assistant's message, and the message without it."""
    bare = {key: value for key, value in message.items() if key not in REASONING}
    named = next((message[key] for key in REASONING if message.get(key)), None)
    if named is not None:
        return str(named).strip(), bare
    reasoning, answer = split_reasoning(text_of(message))
    return (reasoning, {**bare, "content": answer}) if answer != text_of(message) else ("", bare)
