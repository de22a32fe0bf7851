"""Do the calls in a row fit the tools that it names?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from edgekit.curation.answers import ValueJudge, value_judge
from edgekit.data import Row
from edgekit_runtime.errors import InputError


class CallJudge:
    """Judges calls; what it knows of a tool's parameters is used again for the next row."""

    def __init__(self) -> None:
        self._known: dict[str, ValueJudge | str] = {}

    def wrong(self, row: Row) -> Iterator[str]:
        """What is wrong with the calls of a row, its earlier turns included, and with the tools that it names."""
        tools = {tool["function"]["name"]: tool["function"] for tool in row.tools}
        for name, tool in tools.items():
            judge = self._judge(tool.get("parameters"))
            if isinstance(judge, str):
                yield f"the parameters of {name}: {judge}"
        for message in (*row.messages, *([] if row.reply is None else [row.reply])):
            for call in message.get("tool_calls") or ():
                yield from self._wrong_call(call["function"], tools)

    def _wrong_call(self, call: Mapping[str, Any], tools: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
        name, arguments = call["name"], call["arguments"]
        if name not in tools:
            yield f"{name} is called, and the row's tools are {', '.join(tools) or 'none'}"
            return
        judge = self._judge(tools[name].get("parameters"))
        try:
            found = None if isinstance(judge, str) else judge(arguments)
        except InputError as error:  # the schema refers to what is not there
            found = error.problem
        if found:
            yield f"arguments of {name}: {found}"

    def _judge(self, parameters: Mapping[str, Any] | None) -> ValueJudge | str:
        """What judges arguments; or why nothing can."""
        key = json.dumps(parameters, sort_keys=True)
        if key not in self._known:
            try:
                self._known[key] = value_judge(parameters)
            except InputError as error:
                self._known[key] = error.problem
        return self._known[key]
