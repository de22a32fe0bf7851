"""Files that come from elsewhere: what is no file, or not the file that its name says, is told before it is parsed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from edgekit_runtime.errors import InputError

ADAPTER_CONFIG = "adapter_config.json"  # of a PEFT folder
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")


def check_plain_file(path: Path) -> None:
    """Refuse what is no readable file with something in it.

    Raises:
        InputError: missing, a folder, a dangling link, unreadable, empty, or a git-LFS pointer.
    """
    try:
        os.lstat(path)
    except (OSError, ValueError) as error:  # names from other files may be ones that no system has
        if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
            reason = getattr(error, "strerror", None) or str(error)
            raise InputError(f"{path} can't be read ({reason})", "correct its name, and who may read it") from None
    if path.is_symlink() and not path.exists():
        raise InputError(f"{path} is a link to a file that is gone", "copy the file itself")
    if not path.exists():
        raise InputError(f"{path} is not there", "correct the path, or copy the file")
    if not path.is_file():
        raise InputError(f"{path} is {'a folder' if path.is_dir() else 'no file'}", "put the file itself there")
    try:
        with path.open("rb") as stream:
            start = stream.read(len(LFS_POINTER))
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror})", "check who may read it") from None
    if not start:
        raise InputError(f"{path} is empty", "copy or write it again")
    if start == LFS_POINTER:
        raise InputError(
            f"{path} is a git-LFS pointer, not the file itself", "run `git lfs pull` in the clone that it is from"
        )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file in UTF-8.

    Raises:
        InputError: as :func:`check_plain_file`; another encoding, no JSON, no object, or a key that stands twice.
    """
    check_plain_file(path)
    content = path.read_bytes()
    if content.startswith(BYTE_ORDER_MARKS):
        raise InputError(f"{path} starts with a byte-order mark", "save it as UTF-8 without one")
    try:
        document = json.loads(content.decode("utf-8"), object_pairs_hook=_once)
    except UnicodeDecodeError:
        raise InputError(f"{path} is not in UTF-8", "save it as UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} can't be read as JSON ({error})", "write it again") from None
    if not isinstance(document, dict):
        raise InputError(f"{path} is no JSON object", "write it again")
    return document


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key} stands twice")
        found[key] = value
    return found
