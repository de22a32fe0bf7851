"""What stands around reasoning in answers, and where it ends."""

from __future__ import annotations

import re
from typing import NamedTuple


class Tags(NamedTuple):
    """What stands around reasoning."""

    start: str
    end: str

    @property
    def tail(self) -> re.Pattern[str]:
        """A block at the end of a prompt, open or (group 1) closed."""
        return re.compile(rf"{re.escape(self.start)}\s*({re.escape(self.end)}\s*)?\Z")

    @property
    def block(self) -> re.Pattern[str]:
        """A whole block at the beginning of an answer."""
        return re.compile(rf"\s*{re.escape(self.start)}.*?{re.escape(self.end)}\s*", re.DOTALL)


KNOWN_TAGS = (Tags("<think>", "</think>"), Tags("[THINK]", "[/THINK]"), Tags("<seed:think>", "</seed:think>"))


def found_reasoning(text: str, *, unbegun: bool) -> tuple[Tags, int] | None:
    """The tags of an answer's reasoning, and where its end tag stands: -1 for nowhere yet.  None where there is none.

    ``unbegun``: the start tag may be missing, as some prompts end with it; the end tag begins a line then.
    """
    for tags in KNOWN_TAGS:
        end = text.find(tags.end)
        if text.lstrip().startswith(tags.start):
            return tags, end
        if unbegun and end >= 0 and tags.start not in text[:end] and (end == 0 or text[end - 1] == "\n"):
            return tags, end
    return None


def reasoning_end(text: str, *, thinking: bool | None) -> int:
    """Where an answer goes on behind its reasoning: at its end where that is open, at the beginning where it has none.

    Args:
        text: the answer.
        thinking: whether the prompt has begun a reasoning that the answer goes on with; None where that isn't known,
            and an end tag alone tells it.
    """
    if thinking:
        ends = (text.find(tags.end) + len(tags.end) for tags in KNOWN_TAGS if tags.end in text)
        return min(ends, default=len(text))
    found = found_reasoning(text, unbegun=thinking is None)
    if found is None:
        return 0
    tags, end = found
    return len(text) if end < 0 else end + len(tags.end)
