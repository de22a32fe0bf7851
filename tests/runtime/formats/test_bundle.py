from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path

import pytest

from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.bundle import file_digest, open_bundle, verify_bundle
from tests.runtime.formats.test_manifest import document


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle of the right form; its model files are not models."""
    root = tmp_path / "bundle"
    whole = document()
    for entry in whole["files"]:
        path = root / entry["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(entry["path"].encode())
        entry["size"], entry["sha256"] = path.stat().st_size, file_digest(path)
    whole["base"]["digest"] = whole["files"][0]["sha256"]
    whole["adapters"][0]["digest"] = whole["files"][1]["sha256"]
    (root / "manifest.json").write_text(json.dumps(whole))
    return root


def pack(root: Path, prefix: str = "") -> Path:
    archive = root.with_suffix(".tar")
    with tarfile.open(archive, "w") as tar:
        tar.add(root, arcname=prefix or ".")
    return archive


def test_a_sound_bundle_opens_as_a_folder_and_as_a_tar(bundle: Path) -> None:
    for path in (bundle, pack(bundle), pack(bundle, "line-3")):
        with open_bundle(path) as opened:
            assert opened.base_path.read_bytes() == b"base/model.gguf"
            assert opened.adapter_path("a").read_bytes() == b"adapters/a-1.gguf"


def test_the_unpacked_tar_is_gone_after_use(bundle: Path) -> None:
    with open_bundle(pack(bundle)) as opened:
        root = opened.root
    assert not root.exists()


def test_an_altered_file_is_refused_by_name(bundle: Path) -> None:
    (bundle / "base/model.gguf").write_bytes(b"base/model.gguF")
    with pytest.raises(InputError, match="model.gguf is not the file that was exported"):
        verify_bundle(bundle)


def test_a_truncated_file_is_refused_by_size(bundle: Path) -> None:
    (bundle / "base/model.gguf").write_bytes(b"base")
    with pytest.raises(InputError, match="4 bytes, not 15"):
        verify_bundle(bundle)


def test_a_missing_an_extra_and_a_linked_file_are_refused(bundle: Path) -> None:
    extra = bundle / "base" / "extra"
    extra.write_text("x")
    with pytest.raises(InputError, match="not listed"):
        verify_bundle(bundle)
    extra.unlink()
    extra.symlink_to("/etc/hostname")
    with pytest.raises(InputError, match="is a link"):
        verify_bundle(bundle)
    extra.unlink()
    (bundle / "adapters/a-1.gguf").unlink()
    with pytest.raises(InputError, match="missing"):
        verify_bundle(bundle)


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.tar").write_text("not a tar")
    for path, message in (
        (tmp_path, "has no manifest.json"),
        (tmp_path / "nowhere", "there is no bundle"),
        (tmp_path / "text.tar", "not a sound .tar"),
    ):
        with pytest.raises(InputError, match=message), open_bundle(path):
            pass


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/../../evil"])
def test_a_tar_that_leaves_its_folder_is_refused(name: str, tmp_path: Path) -> None:
    archive = tmp_path / "evil.tar"
    with tarfile.open(archive, "w") as tar:
        member = tarfile.TarInfo(name)
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
    with pytest.raises(InputError, match="leaves the bundle"), open_bundle(archive):
        pass
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(kind: bytes, tmp_path: Path) -> None:
    archive = tmp_path / "links.tar"
    with tarfile.open(archive, "w") as tar:
        member = tarfile.TarInfo("manifest.json")
        member.type, member.linkname = kind, "/etc/passwd"
        tar.addfile(member)
    with pytest.raises(InputError, match="link, a device"), open_bundle(archive):
        pass


def test_a_tar_cut_off_in_the_middle_is_refused(bundle: Path) -> None:
    archive = pack(bundle)
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 3])
    shutil.rmtree(bundle)
    with pytest.raises(InputError), open_bundle(archive):
        pass
