"""Serving a site: the command as a user runs it, ranges and headers as the page needs them."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from edgekit.site.serve import _self_signed
from tests.goods import Goods
from tests.site import hosting


def test_a_site_is_made_and_served_until_ctrl_c(goods: Goods, tmp_path: Path) -> None:
    kit = [sys.executable, "-m", "edgekit"]
    site = tmp_path / "site"
    made = subprocess.run([*kit, "site", goods.bundle, "--output", site], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert f"try it: edgekit serve-site {site}" in made.stdout
    command = [*kit, "serve-site", str(site), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        found = re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())
        assert found
        answer = httpx.get(found[0])
        assert answer.headers["cross-origin-embedder-policy"] == "require-corp"
        assert "wasm-unsafe-eval" in answer.text
        process.send_signal(signal.SIGINT)
        assert process.wait(30) in (0, 128 + signal.SIGINT)
        assert "Traceback" not in process.stderr.read()


def test_downloads_can_go_on_in_the_middle(site: Path) -> None:
    content = (site / "bundle/base/model.gguf").read_bytes()
    with hosting(site) as host:
        part = httpx.get(f"{host.url}bundle/base/model.gguf", headers={"Range": "bytes=1000-"})
    assert (part.status_code, part.content) == (206, content[1000:])


def test_what_is_no_site_and_a_key_without_a_certificate_are_told(tmp_path: Path) -> None:
    for arguments, code in (([tmp_path], 3), ([tmp_path, "--key", "x.pem"], 2)):
        command = [sys.executable, "-m", "edgekit", "serve-site", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stderr.count("\n")) == (code, 1)


def test_the_certificate_for_a_network_is_made_once_and_kept_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path))
    first = _self_signed("192.0.2.7")
    content = first.certificate.read_bytes()
    assert _self_signed("192.0.2.7").certificate.read_bytes() == content
    assert first.key.stat().st_mode & 0o077 == 0
