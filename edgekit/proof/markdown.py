"""What others wrote, as text in a Markdown file: models answer with whatever they like, ``<script>`` included."""

from __future__ import annotations

import html
import re

_MARKUP = re.compile(r"[\\`*_\[\]|!#~]")


def literal(text: str) -> str:
    """A text as one line of Markdown that shows it as it is: no markup, no HTML, no end of a table's cell."""
    return _MARKUP.sub(lambda found: f"\\{found[0]}", html.escape(" ".join(text.split()), quote=False))
