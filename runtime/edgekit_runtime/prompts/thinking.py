"""Reasoning of a request: asked for or not, told apart from the answer while it comes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgekit_runtime.errors import InputError, UsageError, shown
from edgekit_runtime.prompts.reasoning import SWITCHES, Tags, knows_reasoning
from edgekit_runtime.prompts.template import ChatTemplate

EFFORT = "reasoning_effort"  # OpenAI's field, and the variable of templates that know efforts
NO_EFFORT, EFFORTS = "none", ("low", "medium", "high")
_OWN = ("messages", "tools", "documents", "add_generation_prompt")


@dataclass(frozen=True)
class Thinking:
    """How reasoning is told in an answer.

    Attributes:
        start: the tag before it.
        end: the tag behind it.
        open: the prompt ends within it.
    """

    start: str
    end: str
    open: bool


def thinking_arguments(template: ChatTemplate, given: Mapping[str, Any] | None, effort: str | None) -> dict[str, Any]:
    """What a template is told, beside what the adapter says.

    ``enable_thinking`` stands for the switch that a template has, whatever its name.

    Args:
        template: the base's.
        given: ``chat_template_kwargs`` of a request.
        effort: its ``reasoning_effort``.

    Raises:
        InputError: the template knows nothing of it.
        UsageError: effort and switch contradict each other.
    """
    arguments = dict(given or {})
    switched = [arguments.pop(name) for name in SWITCHES if name in arguments]
    for name in arguments:
        if name in _OWN or name not in template.variables:
            raise InputError(f"the base's chat template takes no {shown(name)}", "leave it out of chat_template_kwargs")
    if effort is not None and effort not in (NO_EFFORT, *EFFORTS):
        words = ", ".join((NO_EFFORT, *EFFORTS))
        raise UsageError(f"reasoning_effort {shown(effort)} is not possible", f"use one of {words}")
    if effort in EFFORTS:
        if EFFORT not in template.variables:
            raise InputError("the base's chat template knows no reasoning_effort", "leave it out, or send none")
        arguments[EFFORT] = effort
    if effort == NO_EFFORT or (effort is not None and any(name in template.variables for name in SWITCHES)):
        switched.append(effort != NO_EFFORT)
    if not all(isinstance(each, bool) for each in switched):
        raise InputError("enable_thinking has to be true or false", "send it without quotes")
    if len(set(switched)) > 1:
        raise UsageError("reasoning_effort and enable_thinking contradict each other", "send one of them")
    return arguments | (_switched(template, switched[0]) if switched else {})


def _switched(template: ChatTemplate, on: bool) -> dict[str, bool]:
    """The template's own switch; none where it never reasons and isn't to."""
    found = {name: on for name in SWITCHES if name in template.variables}
    if not found and (on or knows_reasoning(template)):
        raise InputError("the base's chat template has no switch for reasoning", "leave enable_thinking out")
    return found


class Splitter:
    """Tells reasoning from answer in a text that comes in pieces."""

    def __init__(self, thinking: Thinking) -> None:
        """Stand before the first piece."""
        self._start, self._end = thinking.start, thinking.end
        self._state = "thinking" if thinking.open else "before"
        self._held = ""
        self._said = False  # whether the part that comes now has begun, white space aside

    def feed(self, piece: str, *, last: bool = False) -> tuple[str, str]:
        """What of reasoning and of the answer can be told after one more piece; all of it after the ``last``."""
        self._held += piece
        reasoning = answer = ""
        if self._state == "before":
            self._begin(last)
        if self._state == "thinking":
            reasoning = self._think(last)
        if self._state == "answering":
            text = self._held if self._said else self._held.lstrip()
            self._said = self._said or bool(text)
            answer, self._held = text, ""
        return reasoning, answer

    def _begin(self, last: bool) -> None:
        """Is there reasoning?  White space may come before it."""
        text = self._held.lstrip()
        if text.startswith(self._start):
            self._state, self._held = "thinking", text[len(self._start) :]
        elif last or not self._start.startswith(text):
            self._state, self._said = "answering", True  # to the letter

    def _think(self, last: bool) -> str:
        """Reasoning that can be told; white space around it is not part of it."""
        if not self._said:
            self._held = self._held.lstrip()
            self._said = bool(self._held)
        text, found, rest = self._held.partition(self._end)
        if found:
            self._state, self._said, self._held = "answering", False, rest
            return text.rstrip()
        if last:
            self._held = ""
            return text.rstrip()
        sizes = range(min(len(text), len(self._end) - 1), -1, -1)
        kept = next(size for size in sizes if text.endswith(self._end[:size]))  # may become the end tag
        told = text[: len(text) - kept].rstrip()
        self._held = text[len(told) :]
        return told


def split(text: str, thinking: Thinking) -> tuple[str, str]:
    """Reasoning and answer of a whole text."""
    return Splitter(thinking).feed(text, last=True)


def thinking_in(tags: Tags, prompt_end: str, continued: str | None) -> Thinking:
    """How reasoning is told behind a prompt.

    Args:
        tags: of the base's template.
        prompt_end: the end of its text.
        continued: the text that the answer continues, where it does so.
    """
    block = tags.tail.search(prompt_end)
    within = block is not None and block[1] is None
    if continued is not None:
        _, begun, rest = continued.rpartition(tags.start)
        within = within or (bool(begun) and tags.end not in rest)
    return Thinking(tags.start, tags.end, within)
