"""Whose signatures count: Ed25519 (RFC 8032) over bytes that the caller holds, by one of the keys of a trust file.

What is signed of a bundle are the bytes of its ``manifest.json``, which has the sha256 of every other file; of an
adapter file the line ``edgekit.adapter/1 SHA256``.  Nothing here opens what is signed: whoever checks a path and then
reads it again has checked other bytes than those that are used.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit_runtime.errors import InputError
from edgekit_runtime.files.regular import read_small
from edgekit_runtime.formats.adapter import ADAPTER_SCHEMA

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SIGNATURE_SUFFIX = ".sig"
SIGNATURE_BYTES = 64
MAX_TRUST_BYTES = 1024 * 1024
_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)


def check_signed(message: bytes, signature: bytes | None, trust: Path, what: str) -> None:
    """Check that one of the keys in the file ``trust`` has signed ``message``.

    Args:
        message: the very bytes that are used afterwards, or the line that stands for them.
        signature: None where there is none.
        trust: public keys.
        what: names it in errors.

    Raises:
        InputError: unsigned, altered, or signed by somebody else; or no trust file.
    """
    from cryptography.exceptions import InvalidSignature

    keys = public_keys(trust)
    if signature is None:
        raise InputError(f"{what} is not signed, and this device asks for it", "sign it: `edgekit sign`")
    for key in keys:
        try:
            key.verify(signature, message)
            return
        except InvalidSignature:
            continue
    raise InputError(f"{what} is altered or signed by nobody that {trust.name} knows", "get it from its maker again")


def adapter_message(digest: str) -> bytes:
    """What is signed of an adapter file with this sha256."""
    return f"{ADAPTER_SCHEMA} {digest}".encode("ascii")


def adapter_signature(path: Path) -> bytes | None:
    """The signature that lies beside an adapter file; None where there is none.

    Raises:
        InputError: it is no file, or too large for one.
    """
    file = signature_file(path)
    try:
        return read_small(file, SIGNATURE_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{file} can't be read ({error.strerror})", "check its permissions") from None


def signature_file(path: Path) -> Path:
    """Where the signature of an adapter file is."""
    return path.with_name(path.name + SIGNATURE_SUFFIX)


def public_keys(path: Path) -> list[Ed25519PublicKey]:
    """The keys in a trust file.

    Raises:
        InputError: it can't be read, or holds none.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        keys = [load_pem_public_key(block) for block in _PEM.findall(read_small(path, MAX_TRUST_BYTES))]
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise InputError(f"the trust file {path} can't be read ({error})", "put public keys (PEM) in it") from None
    if not keys or not all(isinstance(key, Ed25519PublicKey) for key in keys):
        raise InputError(f"{path} holds no Ed25519 public key", "put NAME.pub of `edgekit keygen` in it")
    return [key for key in keys if isinstance(key, Ed25519PublicKey)]
