"""Where a device store is, and what one is known by."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from edgekit_runtime.store import generations, objects


def default_store() -> Path:
    """The platform's data folder for this user; /var/lib/edgekit for root on Linux."""
    if sys.platform == "linux" and os.geteuid() == 0:
        return Path("/var/lib/edgekit")
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", str(Path.home()))) / "edgekit"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "edgekit"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "edgekit"


def is_store(path: Path) -> bool:
    """Whether a folder is a device store rather than a bundle."""
    return (path / generations.FOLDER).is_dir() and (path / objects.FOLDER).is_dir()
