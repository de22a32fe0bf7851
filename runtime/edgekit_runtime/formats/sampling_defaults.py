"""``generation`` of a base or an adapter: how it is sampled where a request says nothing.

It is checked where it is read, as a value of another kind would make every request fail.
"""

from __future__ import annotations

from typing import Any

from edgekit_runtime.errors import InputError, shown

MOST_TOKENS = 2**31 - 1
MOST_TOP_K = 2**31 - 1
HOTTEST = 1000  # far beyond where all tokens are as likely
# OpenAI's bounds, and for the repetition penalty any that is of use.
LEAST_REPETITION, MOST_REPETITION = 0.01, 100
MOST_PENALTY = 2
# Name -> its kind, least, most.
RULES: dict[str, tuple[type, float, float]] = {
    "max_tokens": (int, 1, MOST_TOKENS),
    "temperature": (float, 0, HOTTEST),
    "top_k": (int, 0, MOST_TOP_K),
    "top_p": (float, 0, 1),
    "min_p": (float, 0, 1),
    "repetition_penalty": (float, LEAST_REPETITION, MOST_REPETITION),
    "frequency_penalty": (float, -MOST_PENALTY, MOST_PENALTY),
    "presence_penalty": (float, -MOST_PENALTY, MOST_PENALTY),
}

# The penalties, and with which value each changes nothing.
PENALTIES = {"repetition_penalty": 1.0, "frequency_penalty": 0.0, "presence_penalty": 0.0}


def penalties_in(generation: dict[str, Any] | None) -> list[str]:
    """The penalties among sampling defaults that change anything."""
    found = generation or {}
    return [name for name, neutral in PENALTIES.items() if found.get(name) not in (None, neutral)]


def check_generation(generation: dict[str, Any] | None, where: str) -> None:
    """Check sampling defaults; names that a later version may add are left alone.

    Args:
        generation: from a manifest or an adapter's metadata; None is good.
        where: names it in errors.

    Raises:
        InputError: a value of the wrong kind, or one that means nothing.
    """
    for name, value in (generation or {}).items():
        if name not in RULES or value is None:
            continue
        kind, least, most = RULES[name]
        number = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
        if not number or not least <= value <= most:  # NaN is nowhere
            word = "a whole number" if kind is int else "a number"
            raise InputError(
                f"{where}: generation.{name} is {shown(str(value))}",
                f"export it with {word} from {least} to {most}",
            )
