"""The grammar of answers that may call functions, in llguidance's dialect of Lark.

What stands around names and arguments is the form's, word for word; arguments are held to each function's parameters.
Text in front of calls is free until the sign that calls begin with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgekit_runtime.constraints import inline_schema
from edgekit_runtime.errors import InputError, shown
from edgekit_runtime.prompts.reasoning_tags import Tags
from edgekit_runtime.prompts.tool_format import ToolFormat
from edgekit_runtime.prompts.tool_syntax import ID_SIGNS, KEYWORDS, NAMED, OBJECT, CallSyntax, function_of
from edgekit_runtime.prompts.tool_values import FREE, Rules, Spelling, pattern_of

NONE, AUTO, REQUIRED = "none", "auto", "required"
CHOICES = (NONE, AUTO, REQUIRED)
_BLANK = "/[ \\n]{0,4}/"


@dataclass(frozen=True)
class Held:
    """What an answer is held to.

    Attributes:
        form: how calls are written.
        tools: descriptions of the functions that may be called.
        choice: ``none``, ``auto`` or ``required``.
        parallel: several calls may come.
        schema: what a text instead of calls has to follow.
        thinking: the prompt has begun a reasoning; None where the answer can't have one.
        tags: what stands around it.
    """

    form: ToolFormat
    tools: Sequence[Mapping[str, Any]]
    choice: str
    parallel: bool = True
    schema: dict[str, Any] | bool | None = None
    thinking: bool | None = None
    tags: Tags = field(default_factory=lambda: Tags("<think>", "</think>"))


def call_grammar(held: Held, controls: Mapping[str, int]) -> str:
    """The grammar's text.

    Args:
        held: what an answer is held to.
        controls: control tokens among the form's texts, which are written as tokens.

    Raises:
        InputError: parameters that can't be held.
    """
    return _Writer(held, controls).written()


class _Writer:
    def __init__(self, held: Held, controls: Mapping[str, int]) -> None:
        assert held.form.syntax is not None
        self._held, self._form, self._syntax = held, held.form, held.form.syntax
        self._controls = controls
        longest = sorted(controls, key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, longest)) if longest else r"(?!)")
        self._rules = Rules(self.literal)

    def written(self) -> str:
        answer = self._answer()
        if self._held.thinking is None:
            self._rules.add("start", answer)
            return self._rules.text()
        self._rules.add("answer", answer)
        thought = self._until("thought", self._held.tags.end)
        if self._held.thinking:
            self._rules.add("start", f"{thought} {_BLANK} answer")
        else:
            begun = self._first("begun", self._held.tags.start)
            self._rules.add("start", f"answer | {begun} {thought} {_BLANK} answer")
        return self._rules.text()

    def _answer(self) -> str:
        if self._held.choice == NONE:
            return self._text()
        self._rules.add("one", " | ".join(self._call(tool) for tool in self._held.tools))
        calls = self._calls()
        if self._held.choice == REQUIRED:
            return f"{self.literal(self._form.opening)} {calls}"
        if self._held.schema is not None:
            self._rules.add("said", f"%json {inline_schema(self._held.schema)}")
            return f"said | {self.literal(self._form.opening)} {calls}"
        if not self._form.needle:
            return f"{self._text()} | {calls}"
        return f"{self._text()} | {self._free_opening()} {calls}"

    def _text(self) -> str:
        """Text in which no calls begin."""
        needle = self._form.needle
        if not needle:
            keys = "|".join(map(pattern_of, self._syntax.keys)) if self._syntax.kind == OBJECT else ""
            start = f'[ \\n\\t\\r]*\\{{[ \\n\\t\\r]*"({keys})"(.|\\n)*' if keys else ""
            self._rules.add("PLAIN", f"{FREE} & ~/{start}/" if start else FREE)
        elif self._control.search(needle):
            self._rules.add("PLAIN", FREE)
        else:
            self._rules.add("PLAIN", f"{FREE} & ~/(.|\\n)*{pattern_of(needle)}(.|\\n)*/")
        return "PLAIN"

    def _free_opening(self) -> str:
        """Any text, up to the opening of calls; its first control token tells it, or all of it."""
        opening = self._form.opening.lstrip()
        control = self._control.search(opening)
        if control is not None:
            return f"PLAIN? {self.literal(opening[control.start() :])}"
        needle = self._form.needle
        rest = opening[len(needle) :]
        return f"{self._until('announced', needle)} {self.literal(rest)}"

    def _until(self, name: str, sign: str) -> str:
        """Any text and the sign that ends it."""
        if sign in self._controls:
            self._rules.add("ANY", FREE)
            return f"ANY? {self.literal(sign)}"
        return self._rules.until(name, sign)

    def _first(self, name: str, sign: str) -> str:
        """A sign that nothing else goes on from."""
        if sign in self._controls:
            return self.literal(sign)
        self._rules.add(f"{name}[lazy]", f"/[ \\n]{{0,4}}{pattern_of(sign)}/")
        return name

    def _calls(self) -> str:
        form, closing = self._form, self.literal(self._form.closing)
        if not (self._held.parallel and form.parallel):
            return f"one {closing}"
        return f"one ({self.literal(form.between)} one)* {closing}"

    def _call(self, tool: Mapping[str, Any]) -> str:
        function = function_of(tool)
        name = function.get("name")
        if not isinstance(name, str) or not name:
            raise InputError("a tool has no name", 'send {"type": "function", "function": {"name": "NAME"}}')
        try:
            return f"({self._written_call(name, _parameters(function), self._syntax)})"
        except InputError as error:
            raise InputError(f"tool {shown(name)}: {error.problem}", error.hint) from None

    def _written_call(self, name: str, schema: dict[str, Any], syntax: CallSyntax) -> str:
        if syntax.kind == OBJECT:
            head = f"{syntax.head}{json.dumps(name, ensure_ascii=False)[1:-1]}{syntax.middle}"
            parts = [self.literal(head), self._rules.json(schema), self.literal(syntax.foot)]
            if len(syntax.keys) > 2:
                parts += [f"/[a-zA-Z0-9]{{{ID_SIGNS}}}/", self.literal(syntax.rest)]
            return " ".join(parts)
        begun = self.literal(f"{name}{syntax.middle}")
        if syntax.kind == NAMED:
            return f"{begun} {self._rules.json(schema)}"
        spelling = Spelling.of(syntax)
        arguments = self._rules.arguments(schema, spelling)
        return f"{begun} {arguments} {self.literal(')' if syntax.kind == KEYWORDS else syntax.foot)}"

    def literal(self, text: str) -> str:
        """A text, its control tokens as tokens; nothing where it is empty."""
        parts, begun = [], 0
        for match in self._control.finditer(text):
            parts += [json.dumps(text[begun : match.start()], ensure_ascii=False), f"<[{self._controls[match[0]]}]>"]
            begun = match.end()
        parts.append(json.dumps(text[begun:], ensure_ascii=False))
        return " ".join(each for each in parts if each != '""') or '""'


def _parameters(function: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a function's arguments: an object, without any where none is described."""
    parameters = function.get("parameters")
    if parameters is None or parameters == {}:
        return {"type": "object", "properties": {}, "additionalProperties": False}
    if not isinstance(parameters, Mapping) or parameters.get("type", "object") != "object":
        raise InputError("its parameters are no schema of an object", 'send {"type": "object", "properties": {}}')
    schema = {"type": "object", **parameters}
    if not schema.get("properties") and schema.keys() <= {"type", "properties", "required", "description", "title"}:
        schema.setdefault("additionalProperties", "properties" not in schema)
    return schema
