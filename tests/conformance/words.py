"""What clients are asked with."""

from __future__ import annotations

from typing import Any

ASKED = [{"role": "user", "content": "Is there a scratch on part 7? Report it."}]
LONG = [{"role": "user", "content": "scratch " * 3000}]  # more than the context
REPORT: dict[str, Any] = {
    "type": "object",
    "properties": {"part": {"type": "integer"}, "verdict": {"enum": ["good", "scratch", "dent"]}},
    "required": ["part", "verdict"],
    "additionalProperties": False,
}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "report", "description": "Report a part.", "parameters": REPORT},
}
VERDICTS = ("good", "scratch", "dent")


def is_report(value: Any) -> bool:
    """Whether a value follows :data:`REPORT`."""
    return (
        isinstance(value, dict)
        and value.keys() == REPORT["properties"].keys()
        and type(value["part"]) is int
        and value["verdict"] in VERDICTS
    )
