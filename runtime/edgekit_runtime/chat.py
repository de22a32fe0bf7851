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


def check_messages(messages: Sequence[Any]) -> list[Message]:
    """Check messages that came from outside.

    Raises:
        InputError: none, or one without a known role and text.
    """
    if not messages:
        raise InputError("there are no messages", "give at least one with role user")
    for number, message in enumerate(messages, 1):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise InputError(f"message {number} has no known role", f"use one of {', '.join(ROLES)}")
        if not isinstance(message.get("content"), str):
            raise InputError(f"message {number} has no text", 'give it as "content"')
    return [dict(message) for message in messages]


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
