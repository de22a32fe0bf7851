"""Which fields ask for reasoning, and for its place in answers."""

from __future__ import annotations

from typing import Any

from edgekit_runtime.errors import InputError
from edgekit_runtime.prompts.thinking import EFFORTS, NO_EFFORT
from edgekit_runtime.server.fields import Fields

FORMATS = ("auto", "deepseek", "none")  # llama-server's; the first two are the same here


def read_thinking(fields: Fields) -> dict[str, Any]:
    """The arguments of Runtime.stream that concern reasoning.

    Raises:
        InputError: a value of the wrong kind, or fields that contradict each other.
    """
    given = dict(fields.object("chat_template_kwargs") or {})
    enabled = fields.flag("enable_thinking")
    if enabled is not None and given.setdefault("enable_thinking", enabled) is not enabled:
        raise InputError("enable_thinking says two things", "send it once")
    budget = fields.either("thinking_budget", "reasoning_budget", lambda name: fields.count(name, or_else=-1))
    return {
        "chat_template_kwargs": given or None,
        "reasoning_effort": fields.one_of("reasoning_effort", NO_EFFORT, *EFFORTS),
        "thinking_budget": None if budget == -1 else budget,
    }


def wants_split(fields: Fields) -> bool:
    """Whether reasoning is to be told apart from the answer.

    Raises:
        InputError: a format that there is not.
    """
    return fields.one_of("reasoning_format", *FORMATS) != "none"
