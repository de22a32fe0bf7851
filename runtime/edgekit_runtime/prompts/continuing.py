"""Conversations that end within a message, whose text the model continues.

No template says how it ends a message.  So the last message gets a mark behind its text, and the rendered conversation
is cut where the mark stands.  transformers does the same (``continue_final_message``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum

from edgekit_runtime.errors import InputError, UsageError
from edgekit_runtime.prompts.template import Message

# Digits stay what they are in capitals and in JSON.  A template that trims texts takes the space.
_MARK, _SPACE = "6150392847", " "
_MEND = "end the conversation with a question, or use a base with another template"


class Ending(Enum):
    """How a prompt ends."""

    QUESTION = "with what comes before an answer"
    MESSAGE = "with the last message, closed"
    TEXT = "with the text of the last message"


def ending_of(*, add_generation_prompt: bool | None, continue_final_message: bool | None) -> Ending:
    """How a prompt ends, from the flags of transformers and vLLM.

    Raises:
        UsageError: both are true.
    """
    if not continue_final_message:
        return Ending.MESSAGE if add_generation_prompt is False else Ending.QUESTION
    if add_generation_prompt:
        raise UsageError("continue_final_message and add_generation_prompt exclude each other", "set one to false")
    return Ending.TEXT


def last_text(messages: Sequence[Message]) -> str:
    """The text that is to be continued.

    Raises:
        InputError: the last message ends with none.
    """
    content = messages[-1].get("content")
    last = content[-1].get("text") if isinstance(content, list) else content
    if not isinstance(last, str):
        raise InputError("the last message ends without a text that can be continued", "give it one")
    return last


def marked(messages: Sequence[Message]) -> list[Message]:
    """The conversation with a mark behind the text of its last message.

    Raises:
        InputError: that has none.
    """
    text = last_text(messages) + _MARK + _SPACE
    content = messages[-1]["content"]
    marked_content = [*content[:-1], {"type": "text", "text": text}] if isinstance(content, list) else text
    return [*messages[:-1], {**messages[-1], "content": marked_content}]


def cut(texts: Sequence[str], said: str, shown: Callable[[str], str]) -> tuple[str, ...]:
    """A rendered conversation without what comes behind the last message's text.

    Args:
        texts: it, around its images, with the mark.
        said: that text.
        shown: puts signs back in their places that were others while it was rendered.

    Raises:
        InputError: the template doesn't show where the text ends, or leaves some of it out.
    """
    *before, last = texts
    if sum(text.count(_MARK) for text in texts) != 1 or _MARK not in last:
        raise InputError("the base's chat template doesn't show where the last message ends", _MEND)
    text, _, rest = last.partition(_MARK)
    text = text if rest.startswith(_SPACE) else text.rstrip()
    if said.strip() not in shown(text):
        raise InputError("the base's chat template leaves some of the last message out", _MEND)
    return (*before, text)
