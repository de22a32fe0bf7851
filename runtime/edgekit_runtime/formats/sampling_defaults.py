"""``generation`` of a base or an adapter: how it is sampled where a request says nothing.

It is checked where it is read, as a value of another kind would make every request fail.
"""

from __future__ import annotations

from typing import Any

from edgekit_runtime.errors import InputError, shown

MOST_TOKENS = 2**31 - 1
MOST_TOP_K = 2**31 - 1
HOTTEST = 1000  # far beyond where all tokens are as likely
# Name -> its kind, least, most.
RULES: dict[str, tuple[type, int, int]] = {
    "max_tokens": (int, 1, MOST_TOKENS),
    "temperature": (float, 0, HOTTEST),
    "top_k": (int, 0, MOST_TOP_K),
    "top_p": (float, 0, 1),
}


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
