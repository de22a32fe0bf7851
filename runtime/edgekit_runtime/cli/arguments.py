"""Values on the command line, checked while it is read: nothing slow has been imported yet."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from typing import Any

from edgekit_runtime.formats.manifest import KV_CACHES

PORTS = (1, 65535)
ALLOW_SPECIAL = "control tokens that are spelt in messages (<|im_end|>) are some, not text"
NO_LOOKAHEAD = "decode token by token, also where a schema forces the next ones or guesses would be right"
KV_CACHE: dict[str, Any] = {
    "choices": KV_CACHES,
    "help": "KV cache: of the memory of f16, q8_0-f16 takes 0.77, q8_0 0.53, q4_0 0.28 (default: the bundle's)",
}
CA = "certificates (PEM) that a registry's may be of, besides the system's"
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}
ANY_PORT = (0, PORTS[1])  # 0 is one that is free


def filled(text: str) -> str:
    """Text that isn't empty."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty, leave it out")
    return text


def whole(least: int = 1, most: int | None = None) -> Callable[[str], int]:
    """A whole number of at least ``least`` and, where given, at most ``most``."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if value < least or (most is not None and value > most):
            raise argparse.ArgumentTypeError(f"{value} is not possible, use {_range(least, most)}")
        return value

    return read


def number(
    least: float | None = None, *, above: float | None = None, most: float | None = None
) -> Callable[[str], float]:
    """A finite number of at least ``least`` or more than ``above``, and at most ``most``."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
        high_enough = (least is None or value >= least) and (above is None or value > above)
        if not math.isfinite(value) or not high_enough or (most is not None and value > most):
            wanted = f"more than {above:g}" if above is not None else _range(least, most)
            raise argparse.ArgumentTypeError(f"{text} is not possible, use {wanted}")
        return value

    return read


def duration(text: str) -> float:
    """Seconds, as ``30s``, ``5m``, ``1h`` or ``1d``."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)([smhd])", text)
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if seconds < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no time, write 30s, 5m or 1h")
    return seconds


def _range(least: float | None, most: float | None) -> str:
    if least is None:
        return "a finite number" if most is None else f"at most {most:g}"
    return f"at least {least:g}" if most is None else f"{least:g} to {most:g}"
