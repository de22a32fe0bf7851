"""Chat templates: messages to the text that a model continues.

Training and device share this code, so that both see the same text to the byte.  Templates come from files, so
they run in jinja's immutable sandbox, set up as transformers sets it up (``apply_chat_template``).
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from typing import Any, NoReturn

from edgekit_runtime.errors import InputError

Message = dict[str, Any]
ROLES = ("system", "user", "assistant", "tool")
IMAGE_PART = {"type": "image"}
# What templates write for an image, whatever the model puts around it included (mtmd writes that itself).
PLACEHOLDERS = ("<|vision_start|><|image_pad|><|vision_end|>", "<image>", "[IMG]", "<start_of_image>", "<|image|>")
_NEEDLE = "needle"


class ChatTemplate:
    """A compiled chat template."""

    def __init__(self, source: str, bos_token: str = "", eos_token: str = "") -> None:
        """Compile ``source``.

        Raises:
            InputError: the template is no valid jinja.
        """
        from jinja2 import TemplateSyntaxError
        from jinja2.ext import loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = _to_json
        environment.globals.update(raise_exception=_refuse, strftime_now=_now)
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        try:
            self._template = environment.from_string(source)
        except TemplateSyntaxError as error:
            raise InputError(
                f"the base's chat template is broken at line {error.lineno} ({error.message})",
                "use a base whose template works",
            ) from None

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> str:
        """Messages to text.

        Raises:
            InputError: the template refuses these messages.
        """
        from jinja2 import TemplateError

        try:
            return self._template.render(
                messages=list(messages), add_generation_prompt=add_generation_prompt, **self._tokens
            )
        except (TemplateError, TypeError, ValueError, LookupError, ArithmeticError) as error:
            raise InputError(
                f"the base's chat template refuses these messages ({error})",
                "change the order or roles of the messages",
            ) from None


class ImageTemplate:
    """A chat template for conversations with images.

    Attributes:
        placeholder: what stands in its text for an image.
        takes_parts: whether it takes contents in parts; if not, the placeholder is put into the text.
    """

    def __init__(self, template: ChatTemplate) -> None:
        """Find out how the template takes parts of messages, and what it writes for an image.

        Templates that know no parts get the placeholder inside the text, on a line of its own.
        """
        self._template = template
        parts = [IMAGE_PART, {"type": "text", "text": _NEEDLE}]
        try:
            probe = template.render([{"role": "user", "content": parts}])
        except InputError:
            probe = ""
        found = next((each for each in PLACEHOLDERS if each in probe), None)
        self.takes_parts = found is not None and _NEEDLE in probe and "'type'" not in probe
        self.placeholder = found if found and self.takes_parts else PLACEHOLDERS[1]

    def render(
        self, messages: Sequence[Message], images: int = 0, *, add_generation_prompt: bool = True
    ) -> tuple[str, ...]:
        """The text before, between and after the images: one more than there are images.

        Raises:
            InputError: the template refuses these messages, or a text in them looks like an image to it.
        """
        given = [{**message, "content": self._content(message)} for message in messages]
        text = self._template.render(given, add_generation_prompt=add_generation_prompt)
        texts = text.split(self.placeholder)
        if len(texts) != images + 1:
            raise InputError(
                f"the prompt has {len(texts) - 1} places for {images} images", f"leave {self.placeholder} out of texts"
            )
        return tuple(texts)

    def _content(self, message: Message) -> str | list[dict[str, Any]]:
        parts = parts_of(message)
        if self.takes_parts:
            return parts
        return "".join(f"{self.placeholder}\n" if part == IMAGE_PART else part["text"] for part in parts)


def check_messages(messages: Sequence[Any], images: int = 0) -> list[Message]:
    """Check messages that came from outside.

    The content of a message is a text, or a list of parts ``{"type": "text", "text": …}`` and ``{"type": "image"}``.
    When no part stands for an image, all of them come first in the last message of the user.  It is None in a message
    of the assistant that calls tools instead; their arguments are objects then, as chat templates write them.

    Args:
        messages: the conversation.
        images: how many images come with it.

    Raises:
        InputError: none, one without a known role and text, or other parts for images than there are images.
    """
    if not messages:
        raise InputError("there are no messages", "give at least one with role user")
    for number, message in enumerate(messages, 1):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise InputError(f"message {number} has no known role", f"use one of {', '.join(ROLES)}")
        content = message.get("content")
        if content is None and _calls_tools(message):
            continue
        if not (isinstance(content, str) or (isinstance(content, list) and content and all(map(_is_part, content)))):
            raise InputError(f"message {number} has no text", 'give it as "content"')
    return _with_images([{"content": None, **message} for message in messages], images)


def _calls_tools(message: Message) -> bool:
    """Whether the message is calls in the form that templates take; text as arguments they would quote once more."""
    calls = message.get("tool_calls")
    return (
        message["role"] == "assistant"
        and isinstance(calls, list)
        and bool(calls)
        and all(isinstance(call, dict) and _is_call(call.get("function")) for call in calls)
    )


def _is_call(function: Any) -> bool:
    return (
        isinstance(function, dict)
        and isinstance(function.get("name"), str)
        and isinstance(function.get("arguments"), dict)
    )


def _is_part(part: Any) -> bool:
    return part == IMAGE_PART or (
        isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
    )


def _with_images(messages: list[Message], images: int) -> list[Message]:
    named = sum(part == IMAGE_PART for message in messages for part in parts_of(message))
    if not named and images:
        asking = next((message for message in reversed(messages) if message["role"] == "user"), messages[-1])
        asking["content"] = [*[IMAGE_PART] * images, *parts_of(asking)]
    elif named != images:
        raise InputError(f"the messages speak of {named} images and {images} came along", "send one for each")
    return messages


def parts_of(message: Message) -> list[dict[str, Any]]:
    """A message's content as a list of parts; none where it calls tools instead."""
    content = message["content"]
    if content is None:
        return []
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def text_of(message: Message) -> str:
    """A message's text, without its images."""
    return "".join(part.get("text", "") for part in parts_of(message))


def apply_system(messages: Sequence[Message], system: str | None) -> list[Message]:
    """Put an adapter's system prompt first, unless the caller brought one."""
    if system is None or (messages and messages[0]["role"] == "system"):
        return list(messages)
    return [{"role": "system", "content": system}, *messages]


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **_: Any) -> str:
    """Jinja's own filter escapes HTML, which no model was trained on."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _refuse(message: str) -> NoReturn:
    from jinja2 import TemplateError

    raise TemplateError(message)


def _now(layout: str) -> str:
    return datetime.datetime.now().strftime(layout)
