"""Conversations and what the base's chat template makes of them here.

A page renders the template with another implementation of jinja.  Before its first answer it renders these and
compares, to the character, so that it never asks a model in another form than it was trained on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.gguf import read_gguf
from edgekit_runtime.prompts.chat import IMAGE_PART, ImageTemplate, Message, TextTemplate, parts_of
from edgekit_runtime.prompts.reasoning import MODES, template_arguments
from edgekit_runtime.prompts.rendering import chat_template
from edgekit_runtime.prompts.template import stopped_clock

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
_CALL = {"type": "function", "id": "abcdefgh1", "function": {"name": "measure", "arguments": {"part": "B 7", "mm": 4}}}
_PARAMETERS = {
    "type": "object",
    "properties": {"part": {"type": "string", "description": 'which "one" & where'}, "mm": {"type": "number"}},
    "required": ["part"],
}
TOOLS = [{"type": "function", "function": {"name": "measure", "description": "Measures.", "parameters": _PARAMETERS}}]
CALLING: tuple[list[Message], ...] = (
    [_SYSTEM | {"content": "You are terse."}, _USER | {"content": "scratch of 0.4 mm"}],
    [
        _USER | {"content": "measure it"},
        _ASSISTANT | {"content": "", "tool_calls": [_CALL]},
        {"role": "tool", "name": "measure", "tool_call_id": "abcdefgh1", "content": '{"mm": 4}'},
        _ASSISTANT | {"content": "4 mm"},
        _USER | {"content": "again"},
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
        refuses, and where there are some the ``tools`` and ``arguments`` it was asked with; ``moment``: what a template
        that reads the clock saw; ``image``: how the template takes images, None for bases that read none; ``tools``:
        how calls are written, and what the template does with tools and results.

    Raises:
        InputError: the base has no template, or a broken one.
    """
    template = chat_template(read_gguf(base))
    seeing = ImageTemplate(template) if with_images else None
    form = seeing or TextTemplate(template)
    switched = [each for mode in MODES if (each := template_arguments(template, mode))]
    asked: list[tuple[list[Message], dict[str, Any]]] = [
        *((messages, {}) for messages in CONVERSATIONS + (WITH_IMAGES if seeing else ())),
        *((messages, {"arguments": each}) for each in switched for messages in CONVERSATIONS),
        *((messages, {"tools": TOOLS}) for messages in CALLING),
    ]
    probes = []
    with stopped_clock() as moment:
        for messages, asking in asked:
            images = sum(parts_of(each).count(IMAGE_PART) for each in messages)
            try:
                texts = form.render(messages, images, **asking)
            except InputError:
                texts = None
            probes.append({"messages": messages, **asking, "texts": texts})
    image = seeing and {"placeholder": seeing.placeholder, "parts": seeing.takes_parts}
    return {
        "image": image,
        "tools": {
            "form": form.tools.form.as_json(),
            "lists": form.tools.lists_tools,
            "results": form.tools.renders_results,
        },
        "probes": probes,
        "moment": moment.isoformat(timespec="seconds") if template.moment else None,
    }
