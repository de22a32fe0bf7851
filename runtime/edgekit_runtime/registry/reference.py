"""What names a bundle, or a repository, in a registry: ``oci://HOST[:PORT]/REPOSITORY[:TAG][@sha256:HEX]``."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, replace

from edgekit_runtime.errors import InputError, shown
from edgekit_runtime.formats.manifest import DIGEST_PATTERN

SCHEME = "oci://"
ALGORITHM = "sha256:"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"  # as the distribution specification has it
_PATTERN = re.compile(
    r"(?P<host>(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?)"
    rf"/(?P<repository>{_PART}(?:/{_PART})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?"
    rf"(?:@{ALGORITHM}(?P<digest>{DIGEST_PATTERN}))?"
)
_LONGEST = 1024
_HIGHEST_PORT = 65535
_FORM = "write oci://HOST/REPOSITORY:TAG, or oci://HOST/REPOSITORY@sha256:HEX; repositories are in lower case"


@dataclass(frozen=True)
class Reference:
    """``host`` with its port; ``digest`` in hex, of the artifact's manifest, counts where there is a ``tag`` too."""

    host: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read a reference.

        Raises:
            InputError: it is none, or says neither which tag nor which digest.
        """
        match = _matched(text)
        if match is None:
            raise InputError(f"{shown(text)} names no bundle in a registry", _FORM)
        reference = cls(**match.groupdict())
        if reference.tag is None and reference.digest is None:
            raise InputError(f"{text} says neither which tag nor which digest", f"write {text}:TAG")
        return reference

    @classmethod
    def parse_repository(cls, text: str) -> Reference:
        """Read what names a repository alone.

        Raises:
            InputError: it is none, or says which tag or digest.
        """
        match = _matched(text)
        if match is None or match["tag"] is not None or match["digest"] is not None:
            raise InputError(
                f"{shown(text)} names no repository of a registry", "write oci://HOST/REPOSITORY, in lower case"
            )
        return cls(**match.groupdict())

    def __str__(self) -> str:
        tag = "" if self.tag is None else f":{self.tag}"
        digest = "" if self.digest is None else f"@{ALGORITHM}{self.digest}"
        return f"{SCHEME}{self.host}/{self.repository}{tag}{digest}"

    @property
    def is_loopback(self) -> bool:
        """Whether the registry is on this machine."""
        return is_loopback(self.host.rpartition(":")[0] if re.search(r":\d+$", self.host) else self.host)

    @property
    def wanted(self) -> str:
        """The digest, else the tag, as the registry is asked for it."""
        return str(self.tag) if self.digest is None else ALGORITHM + self.digest

    def at(self, digest: str) -> Reference:
        """The same, with the digest that the tag led to."""
        return replace(self, digest=digest)


def _matched(text: str) -> re.Match[str] | None:
    rest = text.removeprefix(SCHEME)
    match = _PATTERN.fullmatch(rest) if len(rest) <= _LONGEST and is_reference(text) else None
    port = match and re.search(r":(\d+)$", match["host"])
    return None if port and not 0 < int(port[1]) <= _HIGHEST_PORT else match


def is_reference(text: str) -> bool:
    """Whether a text names something in a registry rather than a file."""
    return text.startswith(SCHEME)


def is_loopback(host: str) -> bool:
    """Whether a host without port is this machine: ``localhost``, or an address that never leaves it."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
