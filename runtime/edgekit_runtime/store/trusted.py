"""The keys that a store trusts.

``trust.pem`` has them.  ``trust.on`` says that there have been some: a store whose ``trust.pem`` got lost takes
nothing, where it would take everything if the file alone decided.
"""

from __future__ import annotations

import os
from pathlib import Path

from edgekit_runtime.errors import InputError
from edgekit_runtime.files.durable import replace_file
from edgekit_runtime.files.regular import read_small
from edgekit_runtime.formats.trust import MAX_TRUST_BYTES, public_keys
from edgekit_runtime.store.objects import SCRATCH

TRUST_FILE = "trust.pem"
TRUST_MARK = "trust.on"


class Trusted:
    """Whose signatures count in a store."""

    def __init__(self, root: Path) -> None:
        self._file, self._mark, self._scratch = root / TRUST_FILE, root / TRUST_MARK, root / SCRATCH

    def keys(self) -> Path | None:
        """The file of trusted keys; None where unsigned files are taken too.

        Raises:
            InputError: there were keys, and their file is missing.
        """
        if os.path.lexists(self._file):
            if not self._mark.exists():  # made by an earlier version, or by hand
                self._write_mark()
            return self._file
        if os.path.lexists(self._mark):
            raise InputError(
                f"this store takes only what a trusted key has signed, and {self._file} is missing",
                "give it the keys again: `edgekit-runtime adapters trust KEY.pub`; "
                f"remove {self._mark} to take unsigned files",
            )
        return None

    def add(self, key: Path) -> None:
        """Trust the keys in a file too.

        Raises:
            InputError: no Ed25519 public key.
        """
        public_keys(key)
        content = read_small(key, MAX_TRUST_BYTES).rstrip() + b"\n"
        if self._file.exists():
            content = self._file.read_bytes() + content
        self._write_mark()
        replace_file(self._file, content, scratch=self._scratch)

    def _write_mark(self) -> None:
        replace_file(
            self._mark, f"only what a key in {TRUST_FILE} has signed is installed\n".encode(), scratch=self._scratch
        )
