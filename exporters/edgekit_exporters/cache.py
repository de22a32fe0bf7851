"""Where things that are slow to make are kept between runs.

``EDGEKIT_CACHE`` names the folder; without it the platform's cache folder is used.  Everything in it can be
deleted at any time: it is made again when needed.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from platformdirs import user_cache_path


def cache_folder(*parts: str) -> Path:
    """Return (and make) a folder inside the cache."""
    root = os.environ.get("EDGEKIT_CACHE")
    folder = (Path(root).expanduser() if root else user_cache_path("edgekit")).joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def cached(target: Path, make: Callable[[Path], None]) -> Path:
    """Return ``target``, made by ``make(temporary_path)`` and renamed into place if it is missing.

    A run that is cut short, or two runs at once, never leave a half-made file or folder under ``target``.
    """
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        make(temporary)
        try:
            temporary.rename(target)
        except OSError:
            if not target.exists():  # a folder that another run has just made is as good as ours
                raise
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
    return target
