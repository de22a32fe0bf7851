"""What others wrote, made visible: whoever reads it sees every sign that is there, and none of them acts."""

from __future__ import annotations

import unicodedata

# Line ends and tabs are layout; the two joiners shape letters of Indic scripts, Persian and emoji.
_KEPT = frozenset("\n\t\u200c\u200d")
_HIDDEN = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))  # controls, bidi, surrogates, what no font has


def visible(text: str) -> str:
    """A text whose signs without a shape (ESC, NUL, those that turn the direction of writing) are written out."""
    text = text.replace("\r\n", "\n")
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_written, text))


def _written(sign: str) -> str:
    return ascii(sign)[1:-1] if sign not in _KEPT and unicodedata.category(sign) in _HIDDEN else sign
