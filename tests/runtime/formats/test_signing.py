from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.bundle import file_digest
from edgekit_runtime.formats.signing import make_key, sign
from edgekit_runtime.formats.trust import adapter_message, adapter_signature, check_signed


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "manifest.json").write_bytes(b'{"name": "line-3"}')
    return folder


@pytest.fixture
def key(tmp_path: Path) -> Path:
    make_key(tmp_path / "line-3.key")
    return tmp_path / "line-3.key"


def check_signature(what: Path, trust: Path) -> None:
    if what.is_dir():
        signature = what / "manifest.sig"
        given = signature.read_bytes() if signature.exists() else None
        check_signed((what / "manifest.json").read_bytes(), given, trust, "it")
    else:
        check_signed(adapter_message(file_digest(what)), adapter_signature(what), trust, "it")


def _public(key: Path) -> Path:
    return key.with_name(key.name + ".pub")


def test_what_was_signed_is_trusted(bundle: Path, key: Path, tmp_path: Path) -> None:
    assert len(sign(bundle, key).read_bytes()) == 64
    check_signature(bundle, _public(key))
    adapter = tmp_path / "one.gguf"
    adapter.write_bytes(b"weights")
    sign(adapter, key)
    check_signature(adapter, _public(key))


def test_a_packed_bundle_is_not_signed_as_if_it_were_an_adapter(key: Path, tmp_path: Path) -> None:
    packed = tmp_path / "line-3.tar"
    packed.write_bytes(b"a tar")
    with pytest.raises(InputError, match="sign the bundle's folder"):
        sign(packed, key)
    assert not packed.with_name("line-3.tar.sig").exists()


def test_any_key_of_the_trust_file_will_do(bundle: Path, key: Path, tmp_path: Path) -> None:
    other = make_key(tmp_path / "other.key")
    trust = tmp_path / "trust.pem"
    trust.write_bytes(other.read_bytes() + _public(key).read_bytes())
    sign(bundle, key)
    check_signature(bundle, trust)
    with pytest.raises(InputError, match="altered or signed by nobody"):
        check_signature(bundle, other)


@given(position=st.integers(0, 17), bit=st.integers(0, 7), what=st.sampled_from(["manifest.json", "manifest.sig"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_any_flipped_bit_is_noticed(bundle: Path, key: Path, position: int, bit: int, what: str) -> None:
    sign(bundle, key)
    content = bytearray((bundle / what).read_bytes())
    content[position] ^= 1 << bit
    before = (bundle / what).read_bytes()
    (bundle / what).write_bytes(content)
    with pytest.raises(InputError):
        check_signature(bundle, _public(key))
    (bundle / what).write_bytes(before)


def test_an_unsigned_one_is_told_from_an_altered_one(bundle: Path, key: Path) -> None:
    with pytest.raises(InputError, match="not signed"):
        check_signature(bundle, _public(key))


def test_a_private_key_is_for_its_owner_and_never_replaced(key: Path) -> None:
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    with pytest.raises(InputError, match="exists already"):
        make_key(key)


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_what_is_no_key_is_told(bundle: Path, key: Path, tmp_path: Path, content: bytes) -> None:
    sign(bundle, key)
    strange = tmp_path / "strange"
    strange.write_bytes(content)
    with pytest.raises(InputError):
        check_signature(bundle, strange)
    with pytest.raises(InputError, match="keygen"):
        sign(bundle, strange)
