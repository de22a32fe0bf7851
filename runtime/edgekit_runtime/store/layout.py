"""Bases of several files: ``STORE/bases/DIGEST/`` has them under the names that the engine looks for.

They are links to the objects, which stay the only copies; made again when they are gone.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Set
from dataclasses import replace
from pathlib import Path

from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.manifest import Manifest
from edgekit_runtime.formats.onnx_base import MODEL_FILE

FOLDER = "bases"


def lay_out(root: Path, manifest: Manifest) -> None:
    """Link the files of a base into a folder of their own, which appears as a whole; nothing for bases of one file.

    Raises:
        InputError: the disk is full or can't be written.
    """
    folder = root / _place(manifest)
    if not manifest.base.parts or folder.is_dir():
        return
    scratch = root / FOLDER / f".{os.getpid()}"  # not in tmp/, which holds files alone
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        for name, file in _files(manifest).items():
            try:
                os.link(root / file, scratch / name)
            except OSError:  # a file system without links
                shutil.copyfile(root / file, scratch / name)
        scratch.rename(folder)
    except OSError as error:
        raise InputError(
            f"{folder} can't be made ({error.strerror})", "free some space, or check permissions"
        ) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def laid_out(root: Path, manifest: Manifest) -> Manifest:
    """The manifest with the base's files where the engine finds them.

    Raises:
        InputError: as :func:`lay_out`.
    """
    if not manifest.base.parts:
        return manifest
    lay_out(root, manifest)
    place = _place(manifest)
    parts = tuple(replace(part, file=f"{place}/{part.name}") for part in manifest.base.parts)
    return replace(manifest, base=replace(manifest.base, file=f"{place}/{MODEL_FILE}", parts=parts))


def drop_layouts(root: Path, kept: Set[str]) -> None:
    """Remove the folders of bases whose digests are not ``kept``."""
    if (root / FOLDER).is_dir():
        for folder in (root / FOLDER).iterdir():
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)


def _place(manifest: Manifest) -> str:
    return f"{FOLDER}/{manifest.base.digest}"


def _files(manifest: Manifest) -> dict[str, str]:
    return {MODEL_FILE: manifest.base.file, **{part.name: part.file for part in manifest.base.parts}}
