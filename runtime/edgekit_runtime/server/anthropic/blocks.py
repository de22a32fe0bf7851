"""The blocks of a message while they come, and the events that tell of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgekit_runtime.files.strict_json import json_object
from edgekit_runtime.prompts.tool_stream import Argued, Begun, Said
from edgekit_runtime.server.parts import Part, Thought

Document = dict[str, Any]
UNSIGNED = ""  # thinking comes from here, and nobody has to prove it


class Blocks:
    """Feed the parts of an answer; get back events.

    Attributes:
        content: the blocks so far.
    """

    def __init__(self) -> None:
        self.content: list[Document] = []
        self._arguments: str | None = None  # of the call that comes
        self._open = False

    def add(self, part: Part) -> Iterator[Document]:
        """Go on with a part."""
        match part:
            case Thought(text):
                yield from self._go_on_with({"type": "thinking", "thinking": "", "signature": UNSIGNED})
                self.content[-1]["thinking"] += text
                yield self._delta({"type": "thinking_delta", "thinking": text})
            case Said(text):
                yield from self._go_on_with({"type": "text", "text": ""})
                self.content[-1]["text"] += text
                yield self._delta({"type": "text_delta", "text": text})
            case Begun(_, identity, name):
                yield from self._begin({"type": "tool_use", "id": identity, "name": name, "input": {}})
                self._arguments = ""
            case Argued(_, text):
                self._arguments = (self._arguments or "") + text
                yield self._delta({"type": "input_json_delta", "partial_json": text})

    def end(self) -> Iterator[Document]:
        """The answer has ended."""
        if not self._open:
            return
        if self._arguments is not None:
            self.content[-1]["input"] = json_object(self._arguments) or {}
        elif self.content[-1]["type"] == "thinking":
            yield self._delta({"type": "signature_delta", "signature": UNSIGNED})
        yield {"type": "content_block_stop", "index": len(self.content) - 1}
        self._open, self._arguments = False, None

    def _go_on_with(self, block: Document) -> Iterator[Document]:
        """Have a block of this kind open."""
        if not self._open or self.content[-1]["type"] != block["type"]:
            yield from self._begin(block)

    def _begin(self, block: Document) -> Iterator[Document]:
        yield from self.end()
        self.content.append(block)
        self._open = True
        yield {"type": "content_block_start", "index": len(self.content) - 1, "content_block": dict(block)}

    def _delta(self, delta: Document) -> Document:
        return {"type": "content_block_delta", "index": len(self.content) - 1, "delta": delta}
