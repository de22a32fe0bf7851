"""Requests with tools: what the answer is held to, and how calls are read from it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekit_runtime.constraints import compiled_rules
from edgekit_runtime.errors import InputError, UsageError, shown
from edgekit_runtime.prompts.bounds import check_form, check_schema
from edgekit_runtime.prompts.reasoning import tags_of
from edgekit_runtime.prompts.reasoning_tags import Tags, reasoning_end
from edgekit_runtime.prompts.template import ChatTemplate
from edgekit_runtime.prompts.thinking import thinking_in
from edgekit_runtime.prompts.tool_format import ToolFormat
from edgekit_runtime.prompts.tool_grammar import AUTO, CHOICES, NONE, REQUIRED, Held, call_grammar
from edgekit_runtime.prompts.tool_syntax import function_of

AS_TEXT = "text"  # calls stay in the text, and nothing holds them: what the model says by itself
Tools = Sequence[Mapping[str, Any]]
Choice = str | Mapping[str, Any]
_TOOL_FORM = 'send {"type": "function", "function": {"name": "NAME", "parameters": {…}}}'


@dataclass(frozen=True)
class Reading:
    """How calls are read from an answer.

    Attributes:
        form: in which they are written.
        tools: which there are.
        thinking: the prompt has begun a reasoning that the answer goes on with.
    """

    form: ToolFormat
    tools: Tools
    thinking: bool

    def as_json(self) -> dict[str, Any]:
        """The same as a JSON object."""
        return {"form": self.form.as_json(), "tools": list(self.tools), "thinking": self.thinking}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Reading:
        """From what :meth:`as_json` gave."""
        return cls(ToolFormat.from_json(document["form"]), document["tools"], document["thinking"])


@dataclass(frozen=True)
class Asked:
    """What a request with tools asks for.

    Attributes:
        tools: those of the prompt.
        choice: ``none``, ``auto``, ``required`` or ``text``.
        only: the function that has to be called.
        parallel: several calls may come.
    """

    tools: Tools
    choice: str
    only: str | None
    parallel: bool

    @classmethod
    def of(cls, tools: Tools, choice: Choice | None, parallel: bool | None) -> Asked | None:
        """A checked request; None where tools have no say.

        Raises:
            InputError: tools that are none, or a choice that there is not.
            UsageError: a choice without tools.
        """
        if choice == AS_TEXT or (not tools and choice in (None, AUTO, NONE)):
            return None
        if not tools:
            raise UsageError("tool_choice asks for a call and there are no tools", "send tools, or leave it out")
        names = check_tools(tools)
        if choice is None or (isinstance(choice, str) and choice in CHOICES):
            return cls(tools, str(choice or AUTO), None, parallel is not False)
        only = _named(choice)
        if only not in names:
            raise InputError(f"tool_choice names {shown(only)}, which is not among the tools", "name one of them")
        return cls(tools, REQUIRED, only, False)

    def grammar(
        self,
        template: ChatTemplate,
        form: ToolFormat,
        end: str,
        controls: Mapping[str, int],
        schema: dict[str, Any] | bool | None,
        continued: str | None = None,
    ) -> tuple[str, Reading | None]:
        """What the answer is held to, and how it is read; nothing is read where no call may come.

        Args:
            template: the base's.
            form: in which it writes calls.
            end: of the prompt's text.
            controls: control tokens that may stand around calls.
            schema: what a text has to follow.
            continued: the text that the answer continues, where it does so.

        Raises:
            InputError: parameters of a function that can't be held, calls of the base that can't be read, or a text
                that no call can follow.
        """
        if form.syntax is None:
            raise InputError(form.why, "use a base with another template, or ask without tools")
        tags = tags_of(template)
        thinking = _goes_on_thinking(template, tags, end, continued)
        if continued is not None and not thinking and self.choice != NONE:
            _check_continued(form, continued)
        tools = [each for each in self.tools if self.only in (None, function_of(each).get("name"))]
        held = Held(form, tools, self.choice, self.parallel, schema, thinking, tags)
        grammar = compiled_rules(call_grammar(held, controls), call_grammar(held, {}), "tools")
        return grammar, None if self.choice == NONE else Reading(form, self.tools, thinking is True)


def _goes_on_thinking(template: ChatTemplate, tags: Tags, end: str, continued: str | None) -> bool | None:
    """Whether an answer goes on with a reasoning that the prompt has begun; None where it can't have any."""
    if continued is not None:
        return thinking_in(tags, end, continued).open or None
    tail = tags.tail.search(end)
    if tail is None:
        return False if tags.start in template.source else None
    return tail[1] is None or None


def _check_continued(form: ToolFormat, continued: str) -> None:
    """Raise InputError for the text of an answer that no call can follow."""
    said = continued[reasoning_end(continued, thinking=None) :]
    if form.needle and form.needle.strip() in said:
        raise InputError("the last message has a call in its text, which can't be continued", "end with its results")
    if not form.needle and said.strip():
        raise InputError(
            "calls of this base are whole answers, so none can follow the text that is continued",
            "send tool_choice none, or leave continue_final_message out",
        )


def check_tools(tools: Any) -> list[str]:
    """The names of functions that a request brings.

    Raises:
        InputError: they are none, too large, or two have the same name.
    """
    if not isinstance(tools, Sequence) or isinstance(tools, str):
        raise InputError("tools has to be a list of functions", _TOOL_FORM)
    names: list[str] = []
    for number, tool in enumerate(tools, 1):
        if not isinstance(tool, Mapping) or tool.get("type", "function") != "function":
            raise InputError(f"tool {number} is no function", _TOOL_FORM)
        name = function_of(tool).get("name")
        if not isinstance(name, str) or not name or not all(each.isalnum() or each in "_-." for each in name):
            raise InputError(f"tool {number} has no name of letters, digits, _, - and .", _TOOL_FORM)
        if name in names:
            raise InputError(f"two tools are called {shown(name)}", "give them different names")
        parameters = function_of(tool).get("parameters")
        if isinstance(parameters, dict):
            check_schema(parameters)
        names.append(name)
    check_form("list of tools", json.dumps(list(tools)))
    return names


def control_tokens(
    texts: Sequence[str], tokenize: Callable[..., list[int]], piece: Callable[[int], bytes], spelt: Sequence[str]
) -> dict[str, int]:
    """Control tokens in texts, by what they look like.

    Args:
        texts: in which they may stand.
        tokenize: the engine's.
        piece: what a token adds to an answer; nothing for control tokens.
        spelt: all tokens by number.
    """
    tokens = {token for text in texts for token in tokenize(text, add_special=False, parse_special=True)}
    found = {spelt[token]: token for token in tokens if token < len(spelt) and not piece(token)}
    return {text: token for text, token in found.items() if text and any(text in each for each in texts)}


def _named(choice: Choice) -> str:
    """The function that a choice names, as OpenAI's clients write it."""
    function = choice.get("function") if isinstance(choice, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str) or (isinstance(choice, Mapping) and choice.get("type", "function") != "function"):
        raise InputError(
            f"tool_choice is none of {', '.join(CHOICES)} and names no function",
            'send one of them, or {"type": "function", "function": {"name": "NAME"}}',
        )
    return name
