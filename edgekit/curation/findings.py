"""What a check has to say of rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

WRONG, DOUBTFUL, NOTE = "wrong", "doubtful", "note"

# Kinds of findings, the gravest first: how grave they are, and what they mean.
KINDS = {
    "unreadable": (WRONG, "rows that training refuses"),
    "schema": (WRONG, "answers that break the JSON schema"),
    "tools": (WRONG, "calls that don't fit the tools of their row"),
    "leak": (WRONG, "evaluation rows that training has too"),
    "near-leak": (WRONG, "evaluation rows that training has nearly"),
    "contradiction": (WRONG, "same question, another answer"),
    "duplicate": (DOUBTFUL, "same question, same answer"),
    "near-duplicate": (DOUBTFUL, "nearly the same question"),
    "personal": (DOUBTFUL, "personal data"),
    "odd": (DOUBTFUL, "odd rows"),
    "too-long": (DOUBTFUL, "rows longer than training allows"),
    "balance": (NOTE, "labels that are rare, missing or nearly all there is"),
}


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        kind: one of :data:`KINDS`.
        where: ``file:line`` of the row; the data set's name where it is about many rows.
        text: what it is.
        other: ``file:line`` of the row that it is compared with.
    """

    kind: str
    where: str
    text: str
    other: str | None = None

    @property
    def level(self) -> str:
        """:data:`WRONG`, :data:`DOUBTFUL` or :data:`NOTE`."""
        return KINDS[self.kind][0]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "level": self.level}
