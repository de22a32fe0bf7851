"""Making keys and Ed25519 signatures (RFC 8032) of bundles and adapter files.

A bundle's ``manifest.sig`` is the raw signature, 64 bytes, of the bytes of ``manifest.json``.  An adapter file's
``NAME.gguf.sig`` signs the line ``edgekit.adapter/1 SHA256``.  Keys are PEM files.
:mod:`~edgekit_runtime.formats.trust` checks signatures.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.adapter import ADAPTER_SUFFIXES
from edgekit_runtime.formats.bundle import file_digest
from edgekit_runtime.formats.manifest import MANIFEST_FILE, SIGNATURE_FILE
from edgekit_runtime.formats.trust import adapter_message, signature_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PUBLIC_SUFFIX = ".pub"


def make_key(path: Path) -> Path:
    """Write a new private key to ``path``, readable by its owner only, and its public half to ``path.pub``.

    Returns:
        The public key's file.

    Raises:
        InputError: one of the files exists already, or can't be written.
    """
    from cryptography.hazmat.primitives import serialization as pem
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.NoEncryption())
    public = key.public_key().public_bytes(pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo)
    public_path = path.with_name(path.name + PUBLIC_SUFFIX)
    made: list[Path] = []
    try:
        for file, content, mode in ((path, private, 0o600), (public_path, public, 0o644)):
            handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            made.append(file)
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
    except OSError as error:
        for file in made:  # half a pair is no use, and would be in the way of the next try
            file.unlink(missing_ok=True)
        if not isinstance(error, FileExistsError):
            raise InputError(f"{path} can't be written ({error.strerror})", "choose another folder") from None
        raise InputError(f"{error.filename} exists already", "choose another name: a key is never replaced") from None
    return public_path


def sign(what: Path, key: Path) -> Path:
    """Sign a bundle folder or an adapter file with a private key; returns the signature's file.

    Raises:
        InputError: no private key, or nothing that can be signed.
    """
    private = private_key(key)
    if what.is_file() and what.suffix not in ADAPTER_SUFFIXES:  # a bundle's .tar, most often: nobody would ask for it
        hint = f"sign the bundle's folder and pack that, or an adapter file ({', '.join(ADAPTER_SUFFIXES)})"
        raise InputError(f"{what} is no adapter file", hint)
    target = _signature_of(what)
    target.write_bytes(private.sign(_message(what)))
    return target


def _signature_of(what: Path) -> Path:
    return what / SIGNATURE_FILE if what.is_dir() else signature_file(what)


def _message(what: Path) -> bytes:
    if what.is_dir():
        try:
            return (what / MANIFEST_FILE).read_bytes()
        except FileNotFoundError:
            raise InputError(f"{what} is no bundle: it has no {MANIFEST_FILE}", "give a bundle's folder") from None
    if not what.is_file():
        raise InputError(f"there is no {what}", "give a bundle's folder or an adapter file")
    return adapter_message(file_digest(what))


def private_key(path: Path) -> Ed25519PrivateKey:
    """Read a private key.

    Raises:
        InputError: it can't be read, or is no Ed25519 key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror})", "make a key: `edgekit keygen`") from None
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InputError(f"{path} is no private key ({error})", "make one: `edgekit keygen`") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(f"{path} is no Ed25519 key", "make one: `edgekit keygen`")
    return key
