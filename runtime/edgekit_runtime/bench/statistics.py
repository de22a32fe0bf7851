"""Samples as figures."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any


def figures(samples: Sequence[float], *, fast: bool = False) -> dict[str, Any]:
    """Median, and the value that 95 % of the samples are not worse than (``fast``: more is better)."""
    ordered = sorted(samples, reverse=fast)
    slow = ordered[min(len(ordered) - 1, math.ceil(0.95 * len(ordered)) - 1)]
    return {"median": statistics.median(samples), "p95": slow, "samples": list(samples)}
