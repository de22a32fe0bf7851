"""OpenAI's requests: from a body to the arguments of :meth:`~edgekit_runtime.Runtime.stream`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.images import check_count
from edgekit_runtime.prompts.bounds import TO_CONTEXT, check_adapters, check_messages_count
from edgekit_runtime.prompts.chat import IMAGE_PART
from edgekit_runtime.server.asked import Asked
from edgekit_runtime.server.fields import Fields
from edgekit_runtime.server.openai.forms import read_form
from edgekit_runtime.server.openai.parameters import CHAT, COMPLETION, STREAM_OPTIONS
from edgekit_runtime.server.openai.sampling import read_sampling, several
from edgekit_runtime.server.openai.thinking import read_thinking, wants_split
from edgekit_runtime.server.openai.tool_requests import read_tools
from edgekit_runtime.server.parameters import check

MOST_ALTERNATIVES = 20
MOST_CHOICES = 64
COMPLETION_TOKENS = 16  # OpenAI's default for completions


def read_chat(document: dict[str, Any], adapters: Sequence[str] = ()) -> Asked:
    """Check the body of a chat completion; images are URLs still.  ``adapters`` are those that numbers stand for.

    Raises:
        InputError: a value of the wrong kind, or a feature that isn't there.
    """
    return chat_of(document, adapters, check(document, CHAT))


def chat_of(document: dict[str, Any], adapters: Sequence[str], ignored: tuple[str, ...]) -> Asked:
    """A chat completion whose fields are known ones, whatever protocol it came by.

    Args:
        document: its body, in OpenAI's form.
        adapters: see :func:`read_chat`.
        ignored: names of fields that were left out of account.

    Raises:
        InputError: a value of the wrong kind.
    """
    fields = Fields(document)
    messages, image_urls = _messages(document.get("messages"))
    check_count(len(image_urls))
    options = _common(document, fields, adapters) | read_thinking(fields) | read_tools(document)
    options |= {
        "messages": messages,
        "image": image_urls or None,
        "max_tokens": _limit(fields, "max_completion_tokens", "max_tokens", "n_predict"),
        "add_generation_prompt": fields.flag("add_generation_prompt"),
        "continue_final_message": fields.flag("continue_final_message"),
    }
    options |= read_logprobs(fields)
    asked = _asked(document, [options], ignored, chat=True)
    return replace(asked, splits=wants_split(fields), reasons=fields.flag("include_reasoning") is not False)


def read_logprobs(fields: Fields) -> dict[str, Any]:
    """The argument of Runtime.stream for ``logprobs`` and ``top_logprobs``, if any.

    Raises:
        InputError: others are wanted without the answer's own.
    """
    alternatives = fields.number("top_logprobs", int, 0, MOST_ALTERNATIVES)
    if fields.flag("logprobs"):
        return {"logprobs": alternatives or 0}
    if alternatives:
        raise InputError("top_logprobs needs logprobs", "set it to true")
    return {}


def read_completion(document: dict[str, Any], adapters: Sequence[str] = ()) -> Asked:
    """Check the body of a plain completion; its prompt is a text or token ids, or several of either.

    Raises:
        InputError: a value of the wrong kind, or a feature that isn't there.
    """
    ignored = check(document, COMPLETION)
    fields = Fields(document)
    echo = fields.flag("echo") is True
    limit = _limit(fields, "max_tokens", "n_predict", least=0 if echo else 1)
    options = _common(document, fields, adapters) | {"max_tokens": COMPLETION_TOKENS if limit is None else limit}
    alternatives = fields.number("logprobs", int, 0, MOST_ALTERNATIVES)
    if alternatives is not None or echo:
        options |= {"logprobs": alternatives, "echo": echo}
    prompts = _prompts(document.get("prompt"))
    return _asked(document, [options | {"raw": prompt} for prompt in prompts], ignored, chat=False)


def _limit(fields: Fields, *names: str, least: int = 1) -> int | None:
    """Where an answer is cut off; the first of the names that is there says it."""
    limits = [fields.count(name, or_else=TO_CONTEXT, least=least) for name in names]
    return next((limit for limit in limits if limit is not None), None)


def _common(document: dict[str, Any], fields: Fields, adapters: Sequence[str]) -> dict[str, Any]:
    lora = read_lora(document.get("lora"), adapters)
    return (
        {"adapter": document.get("model"), "lora": lora, "stop": fields.stops("stop")}
        | read_sampling(fields)
        | read_form(document)
    )


def _asked(document: dict[str, Any], options: list[dict[str, Any]], ignored: tuple[str, ...], *, chat: bool) -> Asked:
    fields = Fields(document)
    model = read_model(document)
    n = fields.number("n", int, 1, MOST_CHOICES) or 1
    if len(options) * n > MOST_CHOICES:
        raise InputError(f"there are {len(options)} prompts with {n} answers each", f"ask for {MOST_CHOICES} at most")
    if not chat and (fields.number("best_of", int, 1) or n) != n:
        raise InputError(f"best_of has to be n here, which is {n}", "leave it out")
    options = [one for each in options for one in several(each, n)]
    stream = fields.flag("stream") is True
    extras = fields.object("stream_options") or {}
    ignored += check(extras, STREAM_OPTIONS, "stream_options")
    usage, progress = Fields(extras).flag("include_usage") is True, fields.flag("return_progress") is True
    return Asked(model, options, chat, stream, usage, ignored, n, progress=progress)


def read_model(document: dict[str, Any]) -> str:
    """The model that a body names.

    Raises:
        InputError: none.
    """
    model = document.get("model")
    if not isinstance(model, str) or not model:
        raise InputError("model is missing", "name an adapter, or base; GET /v1/models lists them")
    return model


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
    if len(prompt) > MOST_CHOICES:
        raise InputError(f"there are {len(prompt)} prompts", f"send at most {MOST_CHOICES} at once")
    return prompt


def read_lora(wanted: Any, adapters: Sequence[str]) -> dict[str, float] | None:
    """Adapters and scales, as llama-server and wllama spell them: ``[{"id": name or number, "scale": 0.5}]``."""
    if wanted is None:
        return None
    if not isinstance(wanted, list) or not all(isinstance(each, dict) for each in wanted):
        raise InputError("lora has to be a list of objects with id and scale", 'send [{"id": "NAME", "scale": 1.0}]')
    check_adapters(len(wanted))
    scales: dict[str, float] = {}
    for each in wanted:
        scale = Fields(each).number("scale", float, 0)
        scales[_adapter(each.get("id"), adapters)] = 1.0 if scale is None else scale
    return scales


def _adapter(given: Any, adapters: Sequence[str]) -> str:
    """The name of an adapter that is given by name, or by its number in GET /lora-adapters."""
    if isinstance(given, str):
        return given
    if type(given) is not int:
        raise InputError("an entry of lora has no id", "give an adapter's name, or its number in GET /lora-adapters")
    if not 0 <= given < len(adapters):
        said = f"there is no adapter with the number {given:.10g}"
        raise InputError(said, "GET /lora-adapters lists them; or give a name")
    return adapters[given]
