"""Names that are chosen from a known set: one way to tell what a mistyped one may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

FEW = 12  # so many names still fit into an error line
_ALIKE = str.maketrans("ol_. ", "01---")  # signs that are taken for one another


def nearest(name: object, known: Iterable[str]) -> str | None:
    """The one of ``known`` that ``name`` most likely means; None when none is like it.

    Case doesn't count, nor do O for 0 and _ for -.
    """
    by_spelling = {_spelled(each): each for each in known}
    close = difflib.get_close_matches(_spelled(name), by_spelling, 1)
    return by_spelling[close[0]] if close else None


def did_you_mean(name: object, known: Iterable[str], lead: str = "use one of") -> str:
    """How to mend ``name``: the nearest of ``known``, and all of them where they are few or none is near.

    Args:
        name: what the user wrote.
        known: what there is.
        lead: what stands before the list, "it has" say.
    """
    names = list(known)
    near = nearest(name, names)
    listed = f"{lead} {', '.join(names)}" if names else "there is none"
    if near is None:
        return listed
    return f"did you mean {near}?" if len(names) > FEW else f"{listed}; did you mean {near}?"


def _spelled(name: object) -> str:
    return str(name).lower().lstrip("-").translate(_ALIKE)
