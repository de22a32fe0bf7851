"""Ollama's requests: from a body to the arguments of :meth:`~edgekit_runtime.Runtime.stream`."""

from __future__ import annotations

from typing import Any

from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.images import check_count
from edgekit_runtime.prompts.bounds import check_messages_count
from edgekit_runtime.prompts.chat import IMAGE_PART
from edgekit_runtime.prompts.thinking import EFFORTS
from edgekit_runtime.server.asked import Asked
from edgekit_runtime.server.fields import Fields
from edgekit_runtime.server.ollama import tables
from edgekit_runtime.server.ollama.calls import with_ids
from edgekit_runtime.server.ollama.names import named
from edgekit_runtime.server.ollama.options import read_format, read_options
from edgekit_runtime.server.openai.requests import read_logprobs
from edgekit_runtime.server.openai.thinking import read_thinking
from edgekit_runtime.server.openai.tool_requests import read_tools
from edgekit_runtime.server.parameters import Table, check

MOST_EFFORT = "max"  # Ollama's word beyond the others; templates know three


def read_chat(document: dict[str, Any]) -> Asked:
    """Check the body of /api/chat; images are base64 still.

    Without messages nothing is generated: the request only asks for the model to be loaded.

    Raises:
        InputError: a value of the wrong kind, or a feature that isn't there.
    """
    options, ignored = _common(document, tables.CHAT)
    messages, images, unknown = _messages(Fields(document).listed("messages") or [])
    tools = read_tools({"tools": document.get("tools")})
    options |= read_thinking(_thinking(document)) | tools | {"messages": messages, "image": images or None}
    if messages and messages[-1].get("role") == "assistant" and not messages[-1].get("tool_calls"):
        options["continue_final_message"] = True
    return _asked(document, [options] if messages else [], (*ignored, *unknown), chat=True)


def read_generate(document: dict[str, Any]) -> Asked:
    """Check the body of /api/generate; images are base64 still.

    Without a prompt nothing is generated, as in :func:`read_chat`.

    Raises:
        InputError: a value of the wrong kind, or a feature that isn't there.
    """
    options, ignored = _common(document, tables.GENERATE)
    fields = Fields(document)
    prompt, system, raw = fields.text("prompt") or "", fields.text("system"), fields.flag("raw") is True
    images = _images(document, "images")
    thinking = read_thinking(_thinking(document))
    if raw and (system or images):
        raise InputError("a raw prompt has neither system prompt nor images", "leave raw out, or those")
    if raw and document.get("think"):
        raise InputError("a raw prompt is continued as it is, and think is for the template", "leave one of them out")
    if raw:
        options |= {"raw": prompt}
    else:
        asking = {"role": "user", "content": _content(prompt, len(images))}
        before = [{"role": "system", "content": system}] if system else []
        options |= thinking | {"messages": [*before, asking], "image": images or None}
    return _asked(document, [options] if prompt or images else [], ignored, chat=False)


def _common(document: dict[str, Any], known: Table) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What both have: arguments, and the names of fields that nobody knows."""
    ignored = check(document, known)
    options, unknown = read_options(document)
    options |= read_format(document) | {"adapter": named(document, "model")[1]} | read_logprobs(Fields(document))
    return options, (*ignored, *unknown)


def _asked(document: dict[str, Any], options: list[dict[str, Any]], ignored: tuple[str, ...], *, chat: bool) -> Asked:
    stream = Fields(document).flag("stream") is not False
    model = named(document, "model")[1]
    return Asked(model, options, chat=chat, stream=stream, include_usage=True, ignored=ignored, splits=True)


def _thinking(document: dict[str, Any]) -> Fields:
    """``think`` under the names that the other fields of reasoning have."""
    wanted = document.get("think")
    if not isinstance(wanted, bool | None) and wanted not in (*EFFORTS, MOST_EFFORT):
        raise InputError(f"think has to be true, false or one of {', '.join(EFFORTS)}", "send one of them")
    if isinstance(wanted, str):
        return Fields({"reasoning_effort": EFFORTS[-1] if wanted == MOST_EFFORT else wanted})
    return Fields({"enable_thinking": wanted})


def _messages(given: list[Any]) -> tuple[list[dict[str, Any]], list[str], list[str]]:
    """Messages as the runtime takes them, their images, and the names of fields that nobody knows."""
    check_messages_count(given)
    images: list[str] = []
    unknown: list[str] = []
    found = []
    for number, message in enumerate(given, 1):
        if not isinstance(message, dict):
            raise InputError(f"message {number} is no object", 'send {"role": "user", "content": "text"}')
        unknown += check(message, tables.MESSAGE, "messages")
        found.append(_message(message, number, images))
    check_count(len(images))
    return with_ids(found), images, unknown


def _message(message: dict[str, Any], number: int, images: list[str]) -> dict[str, Any]:
    fields = Fields(message)
    role, content, calls = fields.text("role"), fields.text("content"), fields.listed("tool_calls")
    own = _images(message, f"images of message {number}")
    images += own
    content = "" if content is None and not calls else content
    made: dict[str, Any] = {
        "role": (role or "").lower(),
        "content": _content(content or "", len(own)) if own else content,
        "thinking": fields.text("thinking"),
        "name": fields.text("tool_name"),
        "tool_call_id": fields.text("tool_call_id"),
        "tool_calls": calls,
    }
    return {name: value for name, value in made.items() if value or name in ("role", "content")}


def _images(document: dict[str, Any], what: str) -> list[str]:
    found = Fields(document).listed("images") or []
    if not all(isinstance(each, str) for each in found):
        raise InputError(f"{what} have to be texts in base64", "encode each file, and send the texts as a list")
    check_count(len(found))
    return found


def _content(text: str, images: int) -> str | list[dict[str, Any]]:
    """A text, behind its images where there are some."""
    return [*(dict(IMAGE_PART) for _ in range(images)), {"type": "text", "text": text}] if images else text
