"""A blob over a line that breaks: what has arrived is not sent again, and what is wrong never counts as arrived."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from edgekit_runtime.errors import InputError, TargetError
from edgekit_runtime.registry.connection import Connection
from edgekit_runtime.registry.download import download
from edgekit_runtime.registry.reference import Reference
from tests import registry as registries
from tests.registry import Registry

BLOB = random.Random(0).randbytes(1_000_000)
DIGEST = hashlib.sha256(BLOB).hexdigest()
BLOBS = {f"sha256:{DIGEST}": BLOB}
HEADS = 1000  # bytes of the answers' heads, at most


def _download(registry: Registry, target: Path, tries: int = 5) -> int:
    connection = Connection(Reference(registry.host, "line-3"), waits=(0.01,) * tries)
    return download(connection, DIGEST, len(BLOB), target, "the blob")


def test_after_each_break_the_rest_alone_is_sent(tmp_path: Path) -> None:
    with registries.running(blobs=BLOBS, cut_after=[0, 300_000, 1, 300_000]) as registry:
        assert _download(registry, tmp_path / "blob") == len(BLOB)
        assert registry.sent < len(BLOB) + HEADS
    assert (tmp_path / "blob").read_bytes() == BLOB


def test_a_line_that_breaks_often_is_used_as_long_as_it_brings_something(tmp_path: Path) -> None:
    with registries.running(blobs=BLOBS, cut_after=[50_000] * 19) as registry:
        assert _download(registry, tmp_path / "blob", tries=1) == len(BLOB)


def test_a_line_that_breaks_for_good_leaves_what_has_arrived_for_the_next_time(tmp_path: Path) -> None:
    with registries.running(blobs=BLOBS, cut_after=[400_000, *[0] * 6]) as registry:
        with pytest.raises(
            TargetError, match="600000 of 1000000 bytes of the blob are to come: run this again"
        ) as error:
            _download(registry, tmp_path / "blob")
        assert error.value.exit_code == 5
        assert (tmp_path / "blob").read_bytes() == BLOB[:400_000]
        registry.forget()
        registry.cut_after = []
        assert _download(registry, tmp_path / "blob") == 600_000
        assert registry.sent < 600_000 + HEADS
    assert (tmp_path / "blob").read_bytes() == BLOB


def test_what_is_whole_already_is_not_asked_for(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(BLOB)
    with registries.running(blobs=BLOBS) as registry:
        assert _download(registry, tmp_path / "blob") == 0
        assert registry.asked == []


@pytest.mark.parametrize("beginning", [b"\0" * 400_000, b"\0" * 1_000_000, b"\0" * 1_000_001])
def test_a_damaged_beginning_is_thrown_away(tmp_path: Path, beginning: bytes) -> None:
    (tmp_path / "blob").write_bytes(beginning)
    with registries.running(blobs=BLOBS) as registry:
        _download(registry, tmp_path / "blob")
    assert (tmp_path / "blob").read_bytes() == BLOB


def test_a_registry_without_ranges_sends_all_of_it_again(tmp_path: Path) -> None:
    with registries.running(blobs=BLOBS, ranges=False, cut_after=[300_000]) as registry:
        _download(registry, tmp_path / "blob")
    assert (tmp_path / "blob").read_bytes() == BLOB


@pytest.mark.parametrize("lie", [BLOB[:-1] + b"\0", b"\0" * len(BLOB), BLOB + b"\0"])
def test_another_blob_is_refused_and_nothing_of_it_stays(tmp_path: Path, lie: bytes) -> None:
    with registries.running(blobs=BLOBS, lies={f"sha256:{DIGEST}": lie}) as registry:
        with pytest.raises(InputError, match="not what its digest says|more than its 1000000 bytes") as error:
            _download(registry, tmp_path / "blob")
        assert error.value.exit_code == 3
        assert (tmp_path / "blob").read_bytes() == b""


@pytest.mark.parametrize("there", [0, 900_000, 999_999])
def test_a_blob_that_is_too_short_in_the_registry_is_refused_and_not_asked_for_again_and_again(
    tmp_path: Path, there: int
) -> None:
    (tmp_path / "blob").write_bytes(BLOB[:there])
    with registries.running(blobs=BLOBS, lies={f"sha256:{DIGEST}": BLOB[:-1]}) as registry:
        with pytest.raises(InputError, match="999999 of its 1000000 bytes in the registry: push the bundle again"):
            _download(registry, tmp_path / "blob")
        assert len(registry.downloads()) <= 3
    assert (tmp_path / "blob").read_bytes() == b""


def test_a_blob_that_the_registry_lacks_is_named(tmp_path: Path) -> None:
    with registries.running() as registry, pytest.raises(InputError, match="the blob is missing from 127.0.0.1"):
        _download(registry, tmp_path / "blob")
