"""OpenAI's requests: from a body to the arguments of :meth:`~edgekit_runtime.Runtime.stream`."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.images import check_count
from edgekit_runtime.prompts.bounds import check_adapters, check_depth, check_messages_count, check_stops
from edgekit_runtime.prompts.chat import IMAGE_PART
from edgekit_runtime.server.forms import read_form
from edgekit_runtime.server.tool_requests import read_tools, refuse_tools

# What of OpenAI's protocol this service does not do; asked for, it is refused rather than ignored.
REFUSED = ("audio", "logit_bias", "suffix")
REFUSED_UNLESS = {"n": 1, "best_of": 1, "presence_penalty": 0, "frequency_penalty": 0}
MOST_ALTERNATIVES = 20
MOST_PROMPTS = 64
COMPLETION_TOKENS = 16  # OpenAI's default for completions


@dataclass(frozen=True)
class Asked:
    """A checked request.

    Attributes:
        model: an adapter's name, or "base".
        options: arguments of Runtime.stream, one set for each prompt.
        chat: a chat completion, not a plain one.
        stream: the answer is wanted piece by piece.
        include_usage: and counts at its end.
    """

    model: str
    options: list[dict[str, Any]]
    chat: bool
    stream: bool
    include_usage: bool
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def logprobs(self) -> bool:
        """Whether log-probabilities are wanted."""
        return self.options[0].get("logprobs") is not None


def read_chat(document: dict[str, Any]) -> Asked:
    """Check the body of a chat completion; images are URLs still.

    Raises:
        InputError: a value of the wrong kind, or a feature that isn't there.
    """
    take = _Taker(document)
    messages, image_urls = _messages(document.get("messages"))
    check_count(len(image_urls))
    limit = take("max_completion_tokens", int, 1)
    options = (
        _common(document, take)
        | read_tools(document)
        | {
            "messages": messages,
            "image": image_urls or None,
            "max_tokens": limit if limit is not None else take("max_tokens", int, 1),
        }
    )
    if document.get("logprobs"):
        options["logprobs"] = take("top_logprobs", int, 0, MOST_ALTERNATIVES) or 0
    elif document.get("top_logprobs"):
        raise InputError("top_logprobs needs logprobs", "set it to true")
    return _asked(document, [options], chat=True)


def read_completion(document: dict[str, Any]) -> Asked:
    """Check the body of a plain completion; its prompt is a text or token ids, or several of either.

    Raises:
        InputError: a value of the wrong kind, or a feature that isn't there.
    """
    take = _Taker(document)
    refuse_tools(document)
    echo = document.get("echo") is True
    limit = take("max_tokens", int, 0 if echo else 1)
    options = _common(document, take) | {"max_tokens": COMPLETION_TOKENS if limit is None else limit}
    alternatives = take("logprobs", int, 0, MOST_ALTERNATIVES)
    if alternatives is not None or echo:
        options |= {"logprobs": alternatives, "echo": echo}
    prompts = _prompts(document.get("prompt"))
    return _asked(document, [options | {"raw": prompt} for prompt in prompts], chat=False)


def _common(document: dict[str, Any], take: _Taker) -> dict[str, Any]:
    for name in REFUSED:
        if document.get(name):
            raise InputError(f"{name} is not available", "leave it out")
    for name, neutral in REFUSED_UNLESS.items():
        if document.get(name) not in (None, neutral):
            raise InputError(f"{name} has to be {neutral} here", "leave it out")
    stop = document.get("stop")
    stop = [stop] if isinstance(stop, str) else stop or []
    if not isinstance(stop, list) or not all(isinstance(each, str) and each for each in stop):
        raise InputError("stop has to be text or a list of texts", 'send ["\\n"], say, or leave it out')
    check_stops(stop)
    return {
        "adapter": document.get("model"),
        "lora": _lora(document.get("lora")),
        "temperature": take("temperature", float, 0),
        "top_k": take("top_k", int, 0),
        "top_p": take("top_p", float, 0),
        "seed": take("seed", int, 0, 2**32 - 1),
        "stop": stop,
    } | read_form(document)


def _asked(document: dict[str, Any], options: list[dict[str, Any]], *, chat: bool) -> Asked:
    model = document.get("model")
    if not isinstance(model, str) or not model:
        raise InputError("model is missing", "name an adapter, or base; GET /v1/models lists them")
    stream = document.get("stream") is True
    if stream and (len(options) > 1 or options[0].get("echo")):
        raise InputError("several prompts, or an echo, can't be streamed", "leave stream out")
    usage = document.get("stream_options")
    include_usage = isinstance(usage, dict) and usage.get("include_usage") is True
    return Asked(model, options, chat, stream, include_usage)


def read_object(body: bytes | bytearray) -> dict[str, Any]:
    """A body's JSON object.

    Raises:
        InputError: it is none.
    """
    try:
        document = json.loads(body)
        json.dumps(document, ensure_ascii=False).encode()  # half a character is JSON, but no text
    except (ValueError, RecursionError) as error:
        raise InputError(f"the body is not JSON ({error})", "send one JSON object") from None
    if not isinstance(document, dict):
        raise InputError("the body is not a JSON object", "send one JSON object")
    check_depth(document)
    return document


class _Taker:
    """Values of a document, each checked against its kind."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document

    def __call__(
        self, name: str, kind: Callable[..., Any], least: float | None = None, most: float | None = None
    ) -> Any:
        value = self._document.get(name)
        if value is None:
            return None
        good = isinstance(value, int) or (kind is float and isinstance(value, float))
        in_bounds = good and (least is None or value >= least) and (most is None or value <= most)
        if not in_bounds or isinstance(value, bool):
            word = "a whole number" if kind is int else "a number"
            bound = "" if least is None else f" of at least {least:g}"
            bound += "" if most is None else f" and at most {most:g}"
            raise InputError(f"{name} has to be {word}{bound}", "change it, or leave it out")
        try:
            return kind(value)
        except OverflowError:
            raise InputError(f"{name} is too large a number", "send a smaller one") from None


def _messages(messages: Any) -> tuple[list[Any], list[str]]:
    """Messages as the runtime takes them, and the URLs of their images."""
    if not isinstance(messages, list):
        raise InputError("messages has to be a list", "send at least one with role user")
    check_messages_count(messages)
    urls: list[str] = []
    return [{**each, "content": _content(each.get("content"), urls)} if isinstance(each, dict) else each
            for each in messages], urls  # fmt: skip


def _content(content: Any, urls: list[str]) -> Any:
    """OpenAI's list of parts; a single text where all are text.  What isn't one is left to the runtime's own check."""
    if not isinstance(content, list):
        return content
    parts = [_part(part, urls) for part in content]
    return parts if IMAGE_PART in parts else "".join(part["text"] for part in parts)


def _part(part: Any, urls: list[str]) -> dict[str, str]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    image = part.get("image_url") if kind == "image_url" else None
    url = image.get("url") if isinstance(image, dict) else image
    if not isinstance(url, str):
        raise InputError("a message has a part that is neither text nor image_url", "send those alone")
    urls.append(url)
    return dict(IMAGE_PART)


def _prompts(prompt: Any) -> list[str | list[int]]:
    def is_tokens(value: Any) -> bool:
        return isinstance(value, list) and bool(value) and all(type(each) is int for each in value)

    if isinstance(prompt, str) or is_tokens(prompt):
        return [prompt]
    if (
        not isinstance(prompt, list)
        or not prompt
        or not all(isinstance(each, str) or is_tokens(each) for each in prompt)
    ):
        raise InputError("prompt has to be text, token ids, or a list of either", 'send "prompt": "text"')
    if len(prompt) > MOST_PROMPTS:
        raise InputError(f"there are {len(prompt)} prompts", f"send at most {MOST_PROMPTS} at once")
    return prompt


def _lora(wanted: Any) -> dict[str, float] | None:
    """Adapters and scales, as llama-server and wllama spell them: ``[{"id": name, "scale": 0.5}]``."""
    if wanted is None:
        return None
    if not isinstance(wanted, list) or not all(isinstance(each, dict) for each in wanted):
        raise InputError("lora has to be a list of objects with id and scale", 'send [{"id": "NAME", "scale": 1.0}]')
    check_adapters(len(wanted))
    scales: dict[str, float] = {}
    for each in wanted:
        name, scale = each.get("id"), _Taker(each)("scale", float, 0)
        if not isinstance(name, str):
            raise InputError("an entry of lora has no id", "name an adapter")
        scales[name] = 1.0 if scale is None else scale
    return scales
