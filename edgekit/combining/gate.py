"""Whether a combination leaves enough of what its parts can do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from edgekit.project import Gate
from edgekit_runtime.errors import GateRefused


def part_refusals(parts: Sequence[Mapping[str, Any]], gate: Gate) -> list[str]:
    """Why a combination must not ship: what it loses on its parts' rows; empty when it may.

    A loss counts when it exceeds ``gate.max_part_loss_points`` even at the favourable end of its 95 % interval.

    Args:
        parts: as run.json has them; those without a score were not measured.
        gate: of the project.
    """
    reasons = []
    for part in parts:
        if "loss" not in part:
            continue
        low = part["loss_interval"][0]
        if low is not None and math.isfinite(low) and low <= gate.max_part_loss_points:
            continue
        reasons.append(
            f"on the rows of {part['name']} it scores {part['after']:.1f} of 100 and {part['name']} alone "
            f"{part['before']:.1f} ({part['metric']}), allowed: a loss of {gate.max_part_loss_points:g}"
        )
    return reasons


def check_parts(name: str, combined: Mapping[str, Any], gate: Gate) -> None:
    """Refuse a combination that loses too much, unless its record says that somebody accepted that.

    Raises:
        GateRefused: it does.
    """
    reasons = part_refusals(combined["parts"], gate)
    if reasons and not combined["accepted"]:
        raise GateRefused(
            f"{name} loses too much of what its parts can do: {'; '.join(reasons)}",
            "use other weights or another method, --search them, say with gate.max_part_loss_points what may be lost, "
            f"or accept it: `edgekit combine {name} --accept-loss REASON`",
        )
