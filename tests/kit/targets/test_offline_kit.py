from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

import edgekit.targets.runtime_build
from edgekit.cli import main
from edgekit_devices.wheelhouse import Platform
from tests.kit.targets.local_runtime import local_wheelhouse


@pytest.fixture
def project(tiny_chat_base: Path, random_lora: Callable[[Path], None], tmp_path: Path) -> Path:
    """A project with an adapter trained elsewhere: exported in a second."""
    folder = tmp_path / "line-3"
    random_lora(folder / "trained")
    (folder / "edgekit.yaml").write_text(
        f"project: line-3\nbase: {tiny_chat_base}\nadapters: {{small: {{path: trained}}}}\n"
        "export: {quantize: F16}\ngate: {rows: 0}\n"
    )
    return folder


def test_export_for_a_device_gives_one_tar_with_all_that_it_installs(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    house = local_wheelhouse(tmp_path / "house", Platform("aarch64", "glibc-2.36", "3.11"))
    monkeypatch.setattr(edgekit.targets.runtime_build, "build_runtime", lambda profile, python=None: house)
    assert main(["export", "--offline", "--device", "raspberry-pi-5", "--project", str(project), "--json"]) == 0
    archive = Path(json.loads(capsys.readouterr().out)["offline"])
    assert archive == project / "dist" / "line-3-raspberry-pi-5.tar"
    with tarfile.open(archive) as tar:
        names = {name.removeprefix("line-3-raspberry-pi-5/") for name in tar.getnames()}
    assert {"install.sh", "kit.env", "SHA256SUMS", "bundle/manifest.json", "bundle/base/model.gguf"} <= names
    assert any(name.startswith("wheelhouse/llama_cpp_python") for name in names)


def test_offline_without_a_device_is_refused_before_anything_is_made(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "--offline", "--project", str(project)]) == 2
    assert "--offline needs to know the device" in capsys.readouterr().err
    assert not (project / "dist").exists()
