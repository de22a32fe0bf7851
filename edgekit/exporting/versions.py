"""Versions of bundles, and of adapters that bring none."""

from __future__ import annotations

import datetime


def version_now() -> str:
    """A number by the time that something was made at, so that a later one is a newer one."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y.%m.%d.%H%M%S")
