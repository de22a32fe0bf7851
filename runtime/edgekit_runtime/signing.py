"""Ed25519 signatures (RFC 8032) of bundles and adapter files, and the keys that a device trusts.

A bundle's ``manifest.sig`` is the raw signature, 64 bytes, of the bytes of ``manifest.json``, which has the sha256 of
every other file.  An adapter file's ``NAME.gguf.sig`` signs the line ``edgekit.adapter/1 SHA256``.  Keys are PEM
files; a trust file is any number of public ones, one after the other.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit_runtime.adapter import ADAPTER_SCHEMA, ADAPTER_SUFFIXES
from edgekit_runtime.bundle import MANIFEST_FILE, SIGNATURE_FILE, file_digest
from edgekit_runtime.errors import InputError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PUBLIC_SUFFIX, SIGNATURE_SUFFIX = ".pub", ".sig"
_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)


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
    try:
        for file, content, mode in ((path, private, 0o600), (public_path, public, 0o644)):
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as stream:
                stream.write(content)
    except FileExistsError as error:
        raise InputError(f"{error.filename} exists already", "choose another name: a key is never replaced") from None
    except OSError as error:
        raise InputError(f"{path} can't be written ({error.strerror})", "choose another folder") from None
    return public_path


def sign(what: Path, key: Path) -> Path:
    """Sign a bundle folder or an adapter file with a private key; returns the signature's file.

    Raises:
        InputError: no private key, or nothing that can be signed.
    """
    private = _private_key(key)
    if what.is_file() and what.suffix not in ADAPTER_SUFFIXES:  # a bundle's .tar, most often: nobody would ask for it
        mend = f"sign the bundle's folder and pack that, or an adapter file ({', '.join(ADAPTER_SUFFIXES)})"
        raise InputError(f"{what} is no adapter file", mend)
    target = _signature_of(what)
    target.write_bytes(private.sign(_message(what)))
    return target


def check_signature(what: Path, trust: Path) -> None:
    """Check that a bundle folder or adapter file is signed by one of the keys in the file ``trust``.

    Raises:
        InputError: unsigned, altered, or signed by somebody else; or no trust file.
    """
    from cryptography.exceptions import InvalidSignature

    keys = public_keys(trust)
    try:
        given = _signature_of(what).read_bytes()
    except FileNotFoundError:
        raise InputError(f"{what} is not signed, and this device asks for it", "sign it: `edgekit sign`") from None
    message = _message(what)
    for key in keys:
        try:
            key.verify(given, message)
            return
        except InvalidSignature:
            continue
    raise InputError(f"{what} is altered or signed by nobody that {trust.name} knows", "get it from its maker again")


def _signature_of(what: Path) -> Path:
    return what / SIGNATURE_FILE if what.is_dir() else what.with_name(what.name + SIGNATURE_SUFFIX)


def _message(what: Path) -> bytes:
    if what.is_dir():
        try:
            return (what / MANIFEST_FILE).read_bytes()
        except FileNotFoundError:
            raise InputError(f"{what} is no bundle: it has no {MANIFEST_FILE}", "give a bundle's folder") from None
    if not what.is_file():
        raise InputError(f"there is no {what}", "give a bundle's folder or an adapter file")
    return f"{ADAPTER_SCHEMA} {file_digest(what)}".encode("ascii")


def _private_key(path: Path) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror})", "make a key: `edgekit keygen`") from None
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is no private key ({error})", "make one: `edgekit keygen`") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(f"{path} is no Ed25519 key", "make one: `edgekit keygen`")
    return key


def public_keys(path: Path) -> list[Ed25519PublicKey]:
    """The keys in a trust file.

    Raises:
        InputError: it can't be read, or holds none.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        keys = [load_pem_public_key(block) for block in _PEM.findall(path.read_bytes())]
    except (OSError, ValueError) as error:
        raise InputError(f"the trust file {path} can't be read ({error})", "put public keys (PEM) in it") from None
    if not keys or not all(isinstance(key, Ed25519PublicKey) for key in keys):
        raise InputError(f"{path} holds no Ed25519 public key", "put NAME.pub of `edgekit keygen` in it")
    return [key for key in keys if isinstance(key, Ed25519PublicKey)]
