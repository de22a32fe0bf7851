"""Conversations and what the base's chat template makes of them here.

A page renders the template with another implementation of jinja.  Before its first answer it renders these and
compares, to the character, so that it never asks a model in another form than it was trained on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekit_runtime.errors import InputError
from edgekit_runtime.gguf import read_gguf
from edgekit_runtime.prompts import chat_template

_USER, _ASSISTANT, _SYSTEM = ({"role": role} for role in ("user", "assistant", "system"))
CONVERSATIONS: tuple[list[dict[str, str]], ...] = (
    [_USER | {"content": "scratch of 0.4 mm"}],
    [_SYSTEM | {"content": "You are terse."}, _USER | {"content": "scratch of 0.4 mm"}],
    [_SYSTEM | {"content": ""}, _USER | {"content": "?"}],
    [
        _SYSTEM | {"content": " spaces around \n"},
        _USER | {"content": "\n\tlines\n\nand \"quotes\" 'here' & <b>tags</b> {{ braces }} {% signs %}\n"},
        _ASSISTANT | {"content": " an answer \n"},
        _USER | {"content": "划痕 0.4 毫米 \U0001f527"},
    ],
    [
        _USER | {"content": "one"},
        _ASSISTANT | {"content": "<think>\nwhy\n</think>\n\ntwo"},
        _USER | {"content": "three"},
        _ASSISTANT | {"content": "four"},
        _USER | {"content": "five"},
    ],
)


def template_probes(base: Path) -> list[dict[str, Any]]:
    """Each conversation with the text that the base's template renders; None where it refuses.

    Raises:
        InputError: the base has no template, or a broken one.
    """
    template = chat_template(read_gguf(base))
    probes = []
    for messages in CONVERSATIONS:
        try:
            text: str | None = template.render(messages)
        except InputError:
            text = None
        probes.append({"messages": messages, "text": text})
    return probes
