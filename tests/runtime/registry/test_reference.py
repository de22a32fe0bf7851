"""What names a bundle in a registry, and which registries are of this machine."""

from __future__ import annotations

import pytest

from edgekit_runtime.errors import InputError
from edgekit_runtime.registry.reference import Reference

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("oci://ghcr.io/team/line-3:1.4", ("ghcr.io", "team/line-3", "1.4", None)),
        ("oci://registry.example:5000/a/b__c/d.e:v1_2", ("registry.example:5000", "a/b__c/d.e", "v1_2", None)),
        (f"oci://localhost:5000/line-3@sha256:{HEX}", ("localhost:5000", "line-3", None, HEX)),
        (f"oci://[::1]:5000/line-3:1@sha256:{HEX}", ("[::1]:5000", "line-3", "1", HEX)),
    ],
)
def test_a_reference_is_read_and_written(text: str, parts: tuple[str, str, str | None, str | None]) -> None:
    reference = Reference.parse(text)
    assert (reference.host, reference.repository, reference.tag, reference.digest) == parts
    assert str(reference) == text


@pytest.mark.parametrize(
    "text",
    [
        "oci://",
        "oci://host",
        "oci://host/Upper:1",
        "oci://host/../etc:1",
        "oci://host/a//b:1",
        "oci://host:99999/a:1",
        "oci://host:0/a:1",
        "oci://user:secret@host/a:1",
        "oci://host/a:1?x=1",
        "oci://host/a:1#x",
        "oci://host/a@sha256:12",
        f"oci://host/a@sha512:{HEX}",
        "oci://host/a:" + "t" * 129,
        "oci://host/a b:1",
        "oci://host/a:1\n",
        "oci://host/" + "a-" * 600 + "a:1",
        "https://host/a:1",
    ],
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="names no bundle in a registry"):
        Reference.parse(text)


def test_a_reference_says_which_version_it_means() -> None:
    with pytest.raises(InputError, match="neither which tag nor which digest: write oci://host/line-3:TAG"):
        Reference.parse("oci://host/line-3")


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.0.0.1:5000", True),
        ("127.9.9.9", True),
        ("[::1]:5000", True),
        ("registry.example:5000", False),
        ("10.0.0.1", False),
        ("127.0.0.1.example:80", False),
        ("localhost.example", False),
    ],
)
def test_plain_http_is_for_this_machine_alone(host: str, here: bool) -> None:
    assert Reference(host, "a").is_loopback is here
