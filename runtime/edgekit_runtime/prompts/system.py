"""System prompts for chat templates that have no place for them.

Some templates refuse a system message, and some leave it out and say nothing.  Which of the three a template does is
found out once, by rendering one.  Where there is no place, the system prompt stands before the first user's text, with
a blank line between: in training and on devices, as both render with this code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgekit_runtime.errors import InputError
from edgekit_runtime.prompts.template import Message

BETWEEN = "\n\n"
# Digits stay what they are in capitals and in JSON.
_TOLD, _ASKED = "9027160435", "5318264079"


def takes_system(render: Callable[[list[Message]], str]) -> bool:
    """Whether a template renders what a system message says; True where it renders no question either.

    Args:
        render: a conversation's text; raises InputError where the template refuses it.
    """
    asked: list[Message] = [{"role": "user", "content": _ASKED}]
    try:
        text = render([{"role": "system", "content": _TOLD}, *asked])
    except InputError:
        text = ""
    if _TOLD in text:
        return True
    try:
        return _ASKED not in render(asked)
    except InputError:
        return True


def folded(messages: Sequence[Message]) -> list[Message]:
    """A conversation whose first message, if it is the system's, has become part of the first user's.

    One that nobody asks anything in stays as it is.
    """
    if not messages:
        return []
    system, rest = messages[0], list(messages[1:])
    at = next((at for at, message in enumerate(rest) if message["role"] == "user"), None)
    if system["role"] != "system" or at is None:
        return list(messages)
    told = system.get("content")
    if told:
        rest[at] = {**rest[at], "content": joined(told, rest[at].get("content") or "", BETWEEN)}
    return rest


def joined(told: str | list[Message], asked: str | list[Message], between: str) -> str | list[Message]:
    """Two contents as one, with a text between: a text, or a list of parts where one of them is."""
    if isinstance(told, str) and isinstance(asked, str):
        return f"{told}{between}{asked}"
    parts = ([{"type": "text", "text": each}] if isinstance(each, str) else each for each in (told, between, asked))
    return [part for each in parts for part in each]
