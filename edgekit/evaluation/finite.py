"""What is said of models that compute NaN or infinity."""

from __future__ import annotations

from edgekit.data import Row
from edgekit_runtime.errors import InputError


class NotFinite(InputError):
    """A model gives NaN or infinity instead of logits."""


def not_finite(side: str, adapter: str | None, row: Row) -> NotFinite:
    """The error for logits of ``row`` that are no numbers.

    Args:
        side: "torch", or "the device engine".
        adapter: whose logits they are; None for the bare base's.
        row: what was asked.
    """
    who = f"adapter {adapter}" if adapter else "the base without an adapter"
    hint = (
        "train it again with a lower learning_rate or another base_precision"
        if adapter and side == "torch"
        else "export it with another --quantize or --mode, or train it again"
        if adapter
        else "use another base, or another precision of it"
    )
    return NotFinite(f"{who} gives NaN or infinity instead of logits in {side} ({row.where})", hint)
