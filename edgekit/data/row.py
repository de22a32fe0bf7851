"""What a data set is made of: objects in files, and the rows that they become."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit_runtime.prompts.chat import Message

IMAGE = "image"


@dataclass(frozen=True)
class Row:
    """One question with its reference answer.

    Attributes:
        messages: the conversation before the answer.
        answer: what the model shall say.
        images: files of an image row, in the order in which the messages speak of them.
        where: ``file:line`` (Parquet: number of the row), for errors and reports.
        tools: descriptions of functions that the model may call, as chat templates take them.
        reply: the answer as a whole message where it is more than text (tool calls, reasoning); None where not.
        rejected: the same question with an answer that is worse; None where the row has none.
    """

    messages: tuple[Message, ...]
    answer: str
    images: tuple[Path, ...]
    where: str
    tools: tuple[dict[str, Any], ...] = ()
    reply: Message | None = None
    rejected: Row | None = None


@dataclass(frozen=True)
class Record:
    """One value of a file (an object, when the file is right), not looked at yet."""

    value: Any
    where: str
