"""OpenAI's chat completions: from a request's body to the runtime's arguments, and back."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from edgekit_runtime.errors import InputError
from edgekit_runtime.generation import Generation

# What of OpenAI's protocol this service does not do; asked for, it is refused rather than ignored.
REFUSED = ("logprobs", "top_logprobs", "tools", "functions", "audio", "logit_bias")
IGNORED_WHEN_NEUTRAL = {"n": 1, "presence_penalty": 0, "frequency_penalty": 0}
ANY_OBJECT = {"type": "object"}


@dataclass(frozen=True)
class ChatRequest:
    """A checked request: ``options`` are arguments of :meth:`~edgekit_runtime.Runtime.stream`."""

    model: str
    stream: bool
    include_usage: bool
    options: dict[str, Any]
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))


def read_chat_request(body: bytes) -> ChatRequest:
    """Check a body.

    Raises:
        InputError: not JSON, a value of the wrong kind, or a feature that isn't there.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the body is not JSON ({error})", "send one JSON object") from None
    if not isinstance(document, dict):
        raise InputError("the body is not a JSON object", "send one JSON object")
    for name in REFUSED:
        if document.get(name):
            raise InputError(f"{name} is not available", "leave it out")
    for name, neutral in IGNORED_WHEN_NEUTRAL.items():
        if document.get(name) not in (None, neutral):
            raise InputError(f"{name} has to be {neutral} here", "leave it out")
    take = _Taker(document)
    limit = take("max_completion_tokens", int, 1)
    stop = document.get("stop")
    stop = [stop] if isinstance(stop, str) else stop or []
    if not isinstance(stop, list) or not all(isinstance(each, str) and each for each in stop):
        raise InputError("stop has to be text or a list of texts", "correct it")
    options = {
        "messages": _messages(document.get("messages")),
        "max_tokens": limit if limit is not None else take("max_tokens", int, 1),
        "temperature": take("temperature", float, 0),
        "top_p": take("top_p", float, 0),
        "seed": take("seed", int),
        "stop": stop,
        "schema": _schema(document.get("response_format")),
    }
    model = document.get("model")
    if not isinstance(model, str) or not model:
        raise InputError("model is missing", "name an adapter, or base; GET /v1/models lists them")
    usage = document.get("stream_options")
    include_usage = isinstance(usage, dict) and usage.get("include_usage") is True
    return ChatRequest(model, document.get("stream") is True, include_usage, options)


def completion(request: ChatRequest, result: Generation) -> dict[str, Any]:
    """The answer in one piece."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": result.text},
        "finish_reason": result.finish_reason,
        "logprobs": None,
    }
    return _envelope(request, "chat.completion", [choice]) | {"usage": _usage(result), "timings": vars(result.timings)}


def chunk(request: ChatRequest, delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
    """One piece of a streamed answer."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
    return _envelope(request, "chat.completion.chunk", [choice])


def usage_chunk(request: ChatRequest, result: Generation) -> dict[str, Any]:
    """The last piece, when ``stream_options.include_usage`` asks for it."""
    return _envelope(request, "chat.completion.chunk", []) | {
        "usage": _usage(result),
        "timings": vars(result.timings),
    }


def error_document(message: str, kind: str, code: str | None = None) -> dict[str, Any]:
    """An error as OpenAI's clients read it."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _envelope(request: ChatRequest, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": request.id,
        "object": kind,
        "created": request.created,
        "model": request.model,
        "choices": choices,
    }


def _usage(result: Generation) -> dict[str, int]:
    return vars(result.usage)


class _Taker:
    """Values of a document, each checked against its kind."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document

    def __call__(self, name: str, kind: Callable[..., Any], least: float | None = None) -> Any:
        value = self._document.get(name)
        if value is None:
            return None
        good = isinstance(value, int) or (kind is float and isinstance(value, float))
        if not good or isinstance(value, bool) or (least is not None and value < least):
            word = "a whole number" if kind is int else "a number"
            bound = "" if least is None else f" of at least {least:g}"
            raise InputError(f"{name} has to be {word}{bound}", "correct it")
        return kind(value)


def _messages(messages: Any) -> list[dict[str, Any]]:
    if not isinstance(messages, list):
        raise InputError("messages has to be a list", "send at least one with role user")
    return [{**each, "content": _text(each.get("content"))} if isinstance(each, dict) else each for each in messages]


def _text(content: Any) -> Any:
    """OpenAI's list of parts as one text; what isn't one is left to the runtime's own check."""
    if not isinstance(content, list):
        return content
    parts = [part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in content]
    if any(not isinstance(part, str) for part in parts):
        raise InputError("a message has parts that are no text", "this bundle reads text only")
    return "".join(part for part in parts if part)


def _schema(wanted: Any) -> dict[str, Any] | None:
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if wanted is None or kind == "text":
        return None
    if kind == "json_object":
        return ANY_OBJECT
    named = wanted.get("json_schema") if kind == "json_schema" else None
    schema = named.get("schema") if isinstance(named, dict) else None
    if not isinstance(schema, dict):
        raise InputError("response_format is not one of text, json_object, json_schema", "correct it")
    return schema
