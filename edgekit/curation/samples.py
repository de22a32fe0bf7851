"""A row as checks compare it: what is asked, what else is given, what is answered."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from edgekit.data import Row
from edgekit.data.json_file import parse_json
from edgekit_runtime.prompts.chat import Message, text_of


@dataclass(frozen=True)
class Sample:
    """A row with what decides whether another one asks the same.

    Attributes:
        row: the row.
        given: digest of all that stands beside the question: system prompts, tools, pixels of images.
        question: the text of all other messages before the answer.
    """

    row: Row
    given: str
    question: str

    @property
    def key(self) -> tuple[str, str]:
        """The same for rows that ask exactly the same."""
        return self.given, self.question.strip()

    @cached_property
    def value(self) -> Any:
        """The answer as a JSON value; its text where it is none."""
        try:
            return parse_json(self.row.answer)
        except ValueError:
            return self.row.answer.strip()

    @property
    def meaning(self) -> str:
        """The same for answers that say the same: JSON in whatever order and spacing."""
        return json.dumps(self.value, sort_keys=True, ensure_ascii=False)


def sample(row: Row) -> Sample:
    """The row as it is compared."""
    given = hashlib.sha256()
    for message in row.messages:
        if message["role"] == "system":
            given.update(text_of(message).strip().encode() + b"\0")
    given.update(json.dumps(row.tools, sort_keys=True).encode())
    for image in row.images:
        given.update(hashlib.sha256(image.read_bytes()).digest())
    asked = [message for message in row.messages if message["role"] != "system"]
    question = _said(asked[0]) if len(asked) == 1 else "\n".join(f"{each['role']}: {_said(each)}" for each in asked)
    return Sample(row, given.hexdigest(), question)


def _said(message: Message) -> str:
    calls = message.get("tool_calls")
    return text_of(message) + (json.dumps(calls, sort_keys=True, ensure_ascii=False) if calls else "")
