"""What a device says of itself (schema ``edgekit.device-report/1``): signed by a key that never leaves its store."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit_runtime.errors import InputError
from edgekit_runtime.files.strict_json import json_object
from edgekit_runtime.formats.manifest import MAX_WORD
from edgekit_runtime.formats.signing import make_key, private_key

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

REPORT_SCHEMA = "edgekit.device-report/1"
WELL, FAILED, WAITING = REPORT_STATES = ("well", "failed", "waiting")
MOST_BYTES = 16 * 1024
LONGEST_REASON = 1000
_KEY_FILE = "device.key"
_DEVICE_SIGNS = 32  # of the sha256 of a device's name, in its tag


@dataclass(frozen=True)
class Report:
    """One device on one channel.

    Attributes:
        channel: of the fleet.
        device: its name.
        rollout: that it speaks of.
        state: ``well`` with the roll-out's bundle; ``failed``, which took it back; ``waiting``, which runs another.
        digest: of the artifact that it runs; None where nobody knows.
        why: in words, where it failed.
        time: of the device's clock, ISO 8601.
        number: counts up with each report, so that an old one is known.
    """

    channel: str
    device: str
    rollout: int
    state: str
    digest: str | None
    why: str
    time: str
    number: int

    @property
    def tag(self) -> str:
        """Where it is in the repository of reports."""
        return f"{self.channel}.{hashlib.sha256(self.device.encode()).hexdigest()[:_DEVICE_SIGNS]}"

    def signed(self, key: Ed25519PrivateKey) -> bytes:
        """As the bytes of its file."""
        text = json.dumps(asdict(self), ensure_ascii=False)
        public = key.public_key().public_bytes_raw().hex()
        signature = key.sign(_message(text)).hex()
        return json.dumps({"schema": REPORT_SCHEMA, "report": text, "key": public, "signature": signature}).encode()


@dataclass(frozen=True)
class SignedReport:
    """A report, and the public key (hex) that has signed it."""

    report: Report
    key: str

    @classmethod
    def parse(cls, content: bytes, where: str) -> SignedReport:
        """Read a report; its signature is checked before anything in it is looked at.

        Raises:
            InputError: it is none, or not signed by the key that it names.
        """
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        document = json_object(content) or {}
        try:
            text, key = str(document["report"]), str(document["key"])
            if document["schema"] != REPORT_SCHEMA:
                raise ValueError("another schema")
            Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(
                bytes.fromhex(str(document["signature"])), _message(text)
            )
            return cls(_report(json_object(text) or {}), key)
        except (KeyError, TypeError, ValueError, InvalidSignature) as error:
            why = str(error) or type(error).__name__
            raise InputError(f"{where} is no report of a device ({why})", "see who pushes there") from None


def device_key(folder: Path) -> Ed25519PrivateKey:
    """The key of a device, in the folder of its fleet; made at the first use.

    Raises:
        InputError: it can't be read, or written.
    """
    path = folder / _KEY_FILE
    if not path.exists():
        make_key(path)
    return private_key(path)


def channel_of(tag: str) -> str:
    """The channel of the report under a tag."""
    return tag.rpartition(".")[0]


def _message(text: str) -> bytes:
    return f"{REPORT_SCHEMA}\n{text}".encode()


def _report(document: dict[str, Any]) -> Report:
    """Raises ValueError where fields are missing or impossible."""
    given: dict[str, Any] = {each.name: document.get(each.name) for each in fields(Report)}
    for name, longest in (("channel", MAX_WORD), ("device", MAX_WORD), ("time", MAX_WORD), ("why", LONGEST_REASON)):
        if not isinstance(given[name], str) or len(given[name]) > longest:
            raise ValueError(f"{name} is no text of at most {longest} signs")
    if not given["device"].isprintable():
        raise ValueError("device can't be printed")
    for name in ("rollout", "number"):
        if type(given[name]) is not int or not 0 <= given[name] < 2**53:
            raise ValueError(f"{name} is no count")
    digest = given["digest"]
    if given["state"] not in REPORT_STATES or not (digest is None or (isinstance(digest, str) and len(digest) == 64)):
        raise ValueError("its state or digest is none")
    return Report(**given)
