from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit_devices.errors import WheelhouseError
from edgekit_devices.wheelfile import write_wheel
from edgekit_devices.wheelhouse import (
    CHECKSUMS,
    DESCRIPTION,
    Platform,
    build_wheelhouse,
    open_wheelhouse,
    sbom,
)

PI = Platform("aarch64", "glibc-2.36", "3.11")


def _wheel(folder: Path, tag: str = "py3-none-any") -> Path:
    metadata = b"Metadata-Version: 2.1\nName: edge_probe\nVersion: 1.0\nLicense: MIT\n"
    return write_wheel(
        folder,
        name="edge_probe",
        version="1.0",
        tag=tag,
        files={"edge_probe.py": b"ANSWER = 42\n"},
        metadata={"METADATA": metadata},
    )


def test_the_same_content_gives_the_same_wheel_and_pip_installs_it(tmp_path: Path) -> None:
    one, two = (_wheel(tmp_path / name) for name in ("a", "b"))
    assert one.read_bytes() == two.read_bytes()
    target = tmp_path / "site"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--target",
        str(target),
        str(one),
    ]
    subprocess.run(pip, check=True)
    code = "import edge_probe, importlib.metadata as m; print(edge_probe.ANSWER, m.version('edge-probe'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=target, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["42", "1.0"]


def test_platform_tags_reach_from_the_device_s_glibc_to_the_oldest() -> None:
    tags = PI.tags()
    assert tags[0] == "manylinux_2_36_aarch64"
    assert tags[-1] == "manylinux2014_aarch64"
    assert "manylinux_2_37_aarch64" not in tags


def test_a_wheel_for_a_newer_system_is_refused(tmp_path: Path) -> None:
    wheel = _wheel(tmp_path, "py3-none-manylinux_2_39_aarch64")
    with pytest.raises(WheelhouseError, match=r"newer C library.*glibc-2.36"):
        build_wheelhouse(tmp_path / "house", PI, [wheel], "edge-probe==1.0", {})


def test_a_damaged_wheelhouse_is_told(tmp_path: Path) -> None:
    import hashlib

    wheel = _wheel(tmp_path)
    (tmp_path / CHECKSUMS).write_text(f"{hashlib.sha256(wheel.read_bytes()).hexdigest()}  {wheel.name}\n")
    document = {"architecture": "aarch64", "libc": "glibc-2.36", "python": "3.11", "requirement": "edge-probe==1.0"}
    (tmp_path / DESCRIPTION).write_text(json.dumps(document | {"files": [wheel.name]}))
    assert open_wheelhouse(tmp_path).size == wheel.stat().st_size
    wheel.write_bytes(b"")
    with pytest.raises(WheelhouseError, match="damaged: delete"):
        open_wheelhouse(tmp_path)
    with pytest.raises(WheelhouseError, match="is no wheelhouse"):
        open_wheelhouse(tmp_path / "nowhere")


def test_the_sbom_lists_each_wheel_with_its_hash_and_is_always_the_same(tmp_path: Path) -> None:
    wheel = _wheel(tmp_path)
    text = sbom(tmp_path, [wheel.name], "edge-probe==1.0")
    assert text == sbom(tmp_path, [wheel.name], "edge-probe==1.0")
    document = json.loads(text)
    (component,) = document["components"]
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    assert (component["name"], component["version"]) == ("edge_probe", "1.0")
    assert component["purl"].startswith("pkg:pypi/edge-probe@1.0")
    assert component["hashes"][0]["alg"] == "SHA-256"
    assert component["licenses"][0]["license"]["name"] == "MIT"
