"""Conversations: messages to the text that a model continues.

Training and device share this code, so that both see the same text to the byte.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekit_runtime.errors import InputError
from edgekit_runtime.prompts.system import folded, takes_system
from edgekit_runtime.prompts.template import ChatTemplate
from edgekit_runtime.prompts.template import Message as Message
from edgekit_runtime.prompts.tool_messages import ToolMessages, Tools, checked_calls

ROLES = ("system", "user", "assistant", "tool")
DEVELOPER = "developer"  # OpenAI's later name of the first one
IMAGE_PART = {"type": "image"}
# What templates write for an image, whatever the model puts around it included (mtmd writes that itself).
PLACEHOLDERS = ("<|vision_start|><|image_pad|><|vision_end|>", "<image>", "[IMG]", "<start_of_image>", "<|image|>")
_NEEDLE = "needle"


@dataclass(frozen=True)
class Asking:
    """What an adapter or a request adds to a conversation.

    Attributes:
        system: the adapter's system prompt.
        arguments: more variables of the chat template, ``{"enable_thinking": False}`` say.
        tools: descriptions of functions that the model may call, as OpenAI's clients send them.
    """

    system: str | None = None
    arguments: Mapping[str, Any] | None = None
    tools: Sequence[Mapping[str, Any]] = ()


class ImageTemplate:
    """A chat template for conversations with images.

    Attributes:
        placeholder: what stands in its text for an image.
        tools: what the template does with tools and calls.
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
        self._takes_system = takes_system(lambda each: template.render(self._given(each)))
        self.tools = ToolMessages(lambda each, **options: template.render(self._given(each), **options))

    def render(
        self, messages: Sequence[Message], images: int = 0, *, tools: Tools = (), **options: Any
    ) -> tuple[str, ...]:
        """The text before, between and after the images: one more than there are images.

        Args:
            messages: the conversation.
            images: how many are in it.
            tools: descriptions of functions that the model may call.
            **options: the others of :meth:`~edgekit_runtime.prompts.template.ChatTemplate.render`.

        Raises:
            InputError: the template refuses these messages, or a text in them looks like an image to it.
        """
        given, tools = self.tools.given(messages, tools)
        given = given if self._takes_system else folded(given)
        text = self._template.render(self._given(given), tools=tools, **options)
        texts = text.split(self.placeholder)
        if len(texts) != images + 1:
            raise InputError(
                f"the prompt has {len(texts) - 1} places for {images} images", f"leave {self.placeholder} out of texts"
            )
        return tuple(texts)

    def _given(self, messages: Sequence[Message]) -> list[Message]:
        return [_with_content(message, self._content) for message in messages]

    def _content(self, message: Message) -> str | list[dict[str, Any]]:
        parts = parts_of(message)
        if self.takes_parts:
            return parts
        return "".join(f"{self.placeholder}\n" if part == IMAGE_PART else part["text"] for part in parts)


class TextTemplate:
    """A chat template for conversations in text alone.

    Attributes:
        tools: what the template does with tools and calls.
    """

    def __init__(self, template: ChatTemplate) -> None:
        """Find out whether the template has a place for system prompts."""
        self._template = template
        self._takes_system = takes_system(template.render)
        self.tools = ToolMessages(template.render)

    def render(
        self, messages: Sequence[Message], images: int = 0, *, tools: Tools = (), **options: Any
    ) -> tuple[str, ...]:
        """The text; see :meth:`ImageTemplate.render`.

        Raises:
            InputError: there are images, or the template refuses these messages.
        """
        if images:
            raise InputError("this is a text bundle", "send images to a caption bundle")
        given, tools = self.tools.given(messages, tools)
        given = given if self._takes_system else folded(given)
        return (self._template.render([_with_content(each, text_of) for each in given], tools=tools, **options),)


def _with_content(message: Message, content: Callable[[Message], Any]) -> Message:
    """A message that calls functions only has no content, and gets none."""
    return message if message.get("content") is None else {**message, "content": content(message)}


def check_messages(messages: Sequence[Any], images: int = 0) -> list[Message]:
    """Check messages that came from outside.

    The content of a message is a text, or a list of parts ``{"type": "text", "text": …}`` and ``{"type": "image"}``.
    When no part stands for an image, all of them come first in the last message of the user.  It is None in a message
    of the assistant that calls tools instead.  Arguments of calls are objects, or their JSON text as OpenAI's clients
    send it; chat templates get objects.  The role ``developer`` is ``system``.

    Args:
        messages: the conversation.
        images: how many images come with it.

    Raises:
        InputError: none, one without a known role and text, or other parts for images than there are images.
    """
    if not messages:
        raise InputError("there are no messages", "give at least one with role user")
    return _with_images([_checked(message, number) for number, message in enumerate(messages, 1)], images)


def _checked(message: Any, number: int) -> Message:
    role = message.get("role") if isinstance(message, dict) else None
    role = "system" if role == DEVELOPER else role
    if role not in ROLES:
        raise InputError(f"message {number} has no known role", f"use one of {', '.join(ROLES)}")
    given = {"content": None, **message, "role": role}
    calls = given.pop("tool_calls", None)
    if calls:
        if role != "assistant":
            raise InputError(f"message {number} has tool_calls and is not the assistant's", "leave them out")
        given["tool_calls"] = checked_calls(calls, f"message {number}")
    content = given["content"]
    if content is None and calls:
        return given
    if not (isinstance(content, str) or (isinstance(content, list) and content and all(map(_is_part, content)))):
        raise InputError(f"message {number} has no text", 'give it as "content"')
    return given


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
    content = message.get("content")
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
