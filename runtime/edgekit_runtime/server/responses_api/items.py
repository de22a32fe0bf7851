"""The items of a response while they come, and the events that tell of them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

from edgekit_runtime.prompts.tool_stream import Argued, Begun, Said
from edgekit_runtime.server.parts import Part, Thought

Document = dict[str, Any]
GOING, WHOLE, CUT = "in_progress", "completed", "incomplete"


class Items:
    """Feed the parts of an answer; get back events without their numbers.

    Attributes:
        output: the items so far, the last one as far as it has come.
    """

    def __init__(self) -> None:
        self.output: list[Document] = []
        self._open: Document | None = None
        self._text = ""
        self._scores: list[Document] = []

    def add(self, part: Part, scores: list[Document]) -> Iterator[Document]:
        """Go on with a part; ``scores`` are the log-probabilities that have come up to some text."""
        match part:
            case Thought(text):
                yield from self._go_on_with("reasoning")
                yield self._delta("response.reasoning_text.delta", text, content_index=0)
            case Said(text):
                yield from self._go_on_with("message")
                self._scores += scores
                yield self._delta("response.output_text.delta", text, content_index=0, logprobs=scores)
            case Begun(_, identity, name):
                yield from self.close(WHOLE)
                call = {"type": "function_call", "call_id": identity, "name": name, "arguments": ""}
                yield self._begin({"id": _id("fc"), **call, "status": GOING})
            case Argued(_, text):
                yield self._delta("response.function_call_arguments.delta", text)

    def end(self, scores: list[Document], *, cut: bool) -> Iterator[Document]:
        """The answer has ended, or was cut off; there is a message, if there is nothing else."""
        if not self.output:
            yield from self._go_on_with("message")
        self._scores += scores
        yield from self.close(CUT if cut else WHOLE)

    def close(self, status: str) -> Iterator[Document]:
        """What the open item ends with, if there is one."""
        item = self._open
        if item is None:
            return
        if item["type"] == "function_call":
            item["arguments"] = self._text
            yield self._told("response.function_call_arguments.done", arguments=self._text, name=item["name"])
        else:
            part = self._part()
            scored = {"logprobs": part["logprobs"]} if item["type"] == "message" else {}
            yield self._told(f"response.{part['type']}.done", content_index=0, text=self._text, **scored)
            yield self._told("response.content_part.done", content_index=0, part=part)
            item["content"] = [part]
        item["status"] = WHOLE if item["type"] == "function_call" else status  # calls come whole, or not at all
        yield {"type": "response.output_item.done", "output_index": len(self.output) - 1, "item": dict(item)}
        self._open, self._text, self._scores = None, "", []

    def _go_on_with(self, kind: str) -> Iterator[Document]:
        """Have an item of text open."""
        if self._open is not None and self._open["type"] == kind:
            return
        yield from self.close(WHOLE)
        if kind == "message":
            yield self._begin({"id": _id("msg"), "type": kind, "role": "assistant", "content": [], "status": GOING})
        else:
            yield self._begin({"id": _id("rs"), "type": kind, "summary": [], "content": [], "status": GOING})
        yield self._told("response.content_part.added", content_index=0, part=self._part())

    def _begin(self, item: Document) -> Document:
        self._open = item
        self.output.append(item)
        return {"type": "response.output_item.added", "output_index": len(self.output) - 1, "item": dict(item)}

    def _part(self) -> Document:
        """The text of the open item, as its content."""
        assert self._open is not None
        if self._open["type"] == "reasoning":
            return {"type": "reasoning_text", "text": self._text}
        return {"type": "output_text", "text": self._text, "annotations": [], "logprobs": list(self._scores)}

    def _delta(self, kind: str, text: str, **more: Any) -> Document:
        self._text += text
        return self._told(kind, delta=text, **more)

    def _told(self, kind: str, **more: Any) -> Document:
        assert self._open is not None
        return {"type": kind, "item_id": self._open["id"], "output_index": len(self.output) - 1, **more}


def _id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"
