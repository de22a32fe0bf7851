"""The colours of pages: one style sheet, that of the device's status page, is the phone page's too."""

from __future__ import annotations

import re
from importlib.resources import files

COLOURS_FILE = "colours.css"
_DARK = "@media (prefers-color-scheme: dark)"


def colours_sheet() -> str:
    """The style sheet, as the status page gets it."""
    return (files("edgekit_runtime") / "server" / "page" / COLOURS_FILE).read_text(encoding="utf-8")


def colour(name: str, *, dark: bool) -> str:
    """The value of ``--name`` in the light or the dark scheme, for files that can't use a style sheet.

    Raises:
        KeyError: the scheme has no such colour.
    """
    found: dict[str, str] = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", colours_sheet().split(_DARK)[dark]))
    return found[name]
