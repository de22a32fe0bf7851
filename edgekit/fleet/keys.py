"""The private keys of a fleet's roles: PEM files, found by what they are and not by their names."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner, Key, SSlibKey
from tuf.api.metadata import Metadata, Root

from edgekit_runtime.errors import InputError
from edgekit_runtime.files.durable import sync_folder
from edgekit_runtime.formats.signing import PUBLIC_SUFFIX, make_key, private_key

SUFFIX = ".key"
_NAME = "x-edgekit-name"  # a field of a public key: what its file was called


class Keys:
    """The private keys that are at hand.

    Attributes:
        folders: where they were looked for.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        """Read all ``*.key`` in some folders.

        Raises:
            InputError: one of them can't be read, or is no Ed25519 key.
        """
        self.folders = tuple(folders)
        self._signers: dict[str, CryptoSigner] = {}
        for folder in folders:
            if not folder.is_dir():
                raise InputError(f"there is no folder {folder}", "name the folder of the key files")
            for path in sorted(folder.glob(f"*{SUFFIX}")):
                self.add(path)

    def add(self, path: Path) -> Key:
        """Have the private key of a file at hand; returns its public half."""
        signer = _signer(private_key(path), path.name.removesuffix(SUFFIX))
        self._signers[signer.public_key.keyid] = signer
        return signer.public_key

    def make(self, name: str) -> Key:
        """A new key in the first folder, which is on the disk before anything is signed with it.

        Raises:
            InputError: a file of this name exists, or it can't be written.
        """
        path = self.folders[0] / f"{name}{SUFFIX}"
        for written in (path, make_key(path)):
            with written.open("rb") as stream:
                os.fsync(stream.fileno())
        sync_folder(path.parent)
        return self.add(path)

    def free_name(self, role: str) -> str:
        """A name for the next key of a role that no file has."""
        taken = {path.name for folder in self.folders for path in folder.iterdir()}
        number = 1
        while {f"{name_of(role, number)}{ending}" for ending in (SUFFIX, SUFFIX + PUBLIC_SUFFIX)} & taken:
            number += 1
        return name_of(role, number)

    def lacking(self, root: Root, role: str) -> list[str]:
        """Names of the keys of a role that are missing here; empty where there are enough of them."""
        needed = root.roles[role]
        missing = [keyid for keyid in needed.keyids if keyid not in self._signers]
        if len(needed.keyids) - len(missing) >= needed.threshold:
            return []
        return [key_name(root.keys[keyid]) for keyid in missing]

    def sign(self, metadata: Metadata[Any], roots: Iterable[Root], role: str) -> None:
        """Sign as a role of each of several roots, with all of its keys that are here.

        Raises:
            InputError: there are too few of them.
        """
        metadata.signatures.clear()
        for root in roots:
            if missing := self.lacking(root, role):
                raise self._too_few(root, role, missing)
            for keyid in root.roles[role].keyids:
                if keyid in self._signers:
                    metadata.sign(self._signers[keyid], append=True)

    def sign_too(self, metadata: Metadata[Any], root: Root, role: str) -> None:
        """Sign as a role of another root besides, with those of its keys that are here."""
        for keyid in root.roles[role].keyids:
            if keyid in self._signers:
                metadata.sign(self._signers[keyid], append=True)

    def _too_few(self, root: Root, role: str, missing: Sequence[str]) -> InputError:
        needed = root.roles[role]
        looked = ", ".join(str(folder) for folder in self.folders)
        problem = (
            f"{role}.json has to be signed by {needed.threshold} of the keys of {role}, "
            f"and {len(needed.keyids) - len(missing)} of {len(needed.keyids)} are in {looked} "
            f"(missing: {', '.join(missing)})"
        )
        return InputError(problem, "bring their files, and name their folder: --keys DIR")


def name_of(role: str, number: int) -> str:
    """What the key files of a role are called."""
    return f"{role}-{number}"


def key_name(key: Key) -> str:
    """What a key's file was called when it was made."""
    return str(key.unrecognized_fields.get(_NAME, key.keyid[:12]))


def _signer(private: Ed25519PrivateKey, name: str) -> CryptoSigner:
    public = SSlibKey.from_crypto(private.public_key())
    public.unrecognized_fields[_NAME] = name
    return CryptoSigner(private, public)
