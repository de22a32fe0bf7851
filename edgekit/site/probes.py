"""Conversations and what the base's chat template makes of them here.

A page renders the template with another implementation of jinja.  Before its first answer it renders these and
compares, to the character, so that it never asks a model in another form than it was trained on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekit_runtime.chat import IMAGE_PART, ImageTemplate, Message, parts_of
from edgekit_runtime.errors import InputError
from edgekit_runtime.gguf import read_gguf
from edgekit_runtime.prompts import chat_template

_USER, _ASSISTANT, _SYSTEM = ({"role": role} for role in ("user", "assistant", "system"))
CONVERSATIONS: tuple[list[Message], ...] = (
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
_TEXT = {"type": "text"}
WITH_IMAGES: tuple[list[Message], ...] = (
    [_USER | {"content": [IMAGE_PART, _TEXT | {"text": "Describe the image."}]}],
    [
        _SYSTEM | {"content": "You are terse."},
        _USER | {"content": [_TEXT | {"text": "from \n"}, IMAGE_PART, _TEXT | {"text": "to"}, IMAGE_PART]},
        _ASSISTANT | {"content": "worn"},
        _USER | {"content": "where?"},
    ],
)


def template_facts(base: Path, *, with_images: bool) -> dict[str, Any]:
    """What a page has to know of the base's template.

    Args:
        base: its GGUF.
        with_images: it reads images.

    Returns:
        ``probes``: each conversation with the texts before, between and after its images, None where the template
        refuses; ``image``: how the template takes images, None for bases that read none.

    Raises:
        InputError: the base has no template, or a broken one.
    """
    template = chat_template(read_gguf(base))
    seeing = ImageTemplate(template) if with_images else None
    probes = []
    for messages in CONVERSATIONS + (WITH_IMAGES if seeing else ()):
        images = sum(parts_of(each).count(IMAGE_PART) for each in messages)
        try:
            texts = (template.render(messages),) if seeing is None else seeing.render(messages, images)
        except InputError:
            texts = None
        probes.append({"messages": messages, "texts": texts})
    image = seeing and {"placeholder": seeing.placeholder, "parts": seeing.takes_parts}
    return {"image": image, "probes": probes}
