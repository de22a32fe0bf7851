"""How many tokens of context llama.cpp computes as torch does, where it lacks a base's attention window."""

from __future__ import annotations

import json
import logging

from edgekit.bases.probe.findings import Findings, findings
from edgekit_exporters.base import Base

log = logging.getLogger(__name__)


def exact_context(base: Base) -> int | None:
    """The window that llama.cpp lacks, in tokens: a longer text it computes otherwise.  None where there is no such.

    The probe is asked only about a base that has a window.
    """
    if base.vision is not None or _window(base) is None:
        return None
    found = findings(base.folder)
    if found.unknown is not None:
        log.warning(
            "%s looks back %d tokens, and it isn't known whether llama.cpp does: %s",
            base.name,
            _window(base),
            found.unknown,
        )
    return missing_window(base, found)


def missing_window(base: Base, found: Findings) -> int | None:
    """The same where the probe has been asked."""
    return _window(base) if found.window_ignored else None


def _window(base: Base) -> int | None:
    """Of a base that can see beyond it, as transformers reads its configuration."""
    from edgekit.bases.probe.shrunk import known

    config = known(json.loads((base.folder / "config.json").read_text(encoding="utf-8")))
    window, context = (getattr(config, key, None) for key in ("sliding_window", "max_position_embeddings"))
    return int(window) if window and context and window < context else None
