"""What stands around reasoning in answers."""

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
