"""Serving a site: the command as a user runs it, ranges and headers as the page needs them."""

from __future__ import annotations

import re
import signal
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
import zxingcpp

from edgekit.site.network import choose_address
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
        assert {each.laddr.ip for each in psutil.Process(process.pid).net_connections("inet")} == {"127.0.0.1"}
        answer = httpx.get(found[0])
        assert answer.headers["cross-origin-embedder-policy"] == "require-corp"
        assert "wasm-unsafe-eval" in answer.text
        process.send_signal(signal.SIGINT)
        assert process.wait(30) in (0, 128 + signal.SIGINT)
        assert "Traceback" not in process.stderr.read()


def test_a_phone_on_the_network_reads_the_address_from_the_terminal(site: Path) -> None:
    """The network is another address of loopback here."""
    command = [sys.executable, "-m", "edgekit", "serve-site", str(site), "--lan", "--address", "127.0.0.2", "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        found = re.search(r"https://127\.0\.0\.2:\d+/", process.stdout.readline())
        assert found
        url = found[0]
        lines = [process.stdout.readline().rstrip("\n")]
        while len(lines) * 2 < len(lines[0]):  # two rows of the code in a line
            lines.append(process.stdout.readline().rstrip("\n"))
        assert _read_qr(lines) == url
        certificate = ssl.create_default_context(cadata=ssl.get_server_certificate(_place(url)))
        assert httpx.get(url, verify=certificate).status_code == 200  # it is for this address
        assert {each.laddr.ip for each in psutil.Process(process.pid).net_connections("inet")} == {"127.0.0.2"}
        process.send_signal(signal.SIGINT)
        assert process.wait(30) in (0, 128 + signal.SIGINT)


def _place(url: str) -> tuple[str, int]:
    address = httpx.URL(url)
    assert address.port is not None
    return address.host, address.port


def _read_qr(lines: list[str]) -> str:
    """What a scanner reads from half blocks, which are light."""
    rows = [[sign in halves for sign in line] for line in lines for halves in ("█▀", "█▄")]
    image = np.kron(np.array(rows, dtype=np.uint8) * 255, np.ones((8, 8), dtype=np.uint8))
    (code,) = zxingcpp.read_barcodes(image)
    text: str = code.text
    return text


@pytest.mark.parametrize(
    ("routed", "interfaces", "chosen"),
    [
        ("192.168.1.20", {"lo": ["127.0.0.1"], "wlan0": ["192.168.1.20"]}, "192.168.1.20"),
        ("10.8.0.2", {"lo": ["127.0.0.1"], "tun0": ["10.8.0.2"], "eth0": ["192.168.1.20"]}, "192.168.1.20"),
        (None, {"lo": ["127.0.0.1"], "docker0": ["172.17.0.1"], "eth0": ["169.254.3.4", "10.0.0.7"]}, "10.0.0.7"),
        ("127.0.0.1", {"lo": ["127.0.0.1"]}, None),
        (None, {}, None),
    ],
)
def test_the_address_for_phones_is_a_network_cards(
    routed: str | None, interfaces: dict[str, list[str]], chosen: str | None
) -> None:
    assert choose_address(routed, interfaces) == chosen


def test_downloads_can_go_on_in_the_middle(site: Path) -> None:
    content = (site / "bundle/base/model.gguf").read_bytes()
    with hosting(site) as host:
        part = httpx.get(f"{host.url}bundle/base/model.gguf", headers={"Range": "bytes=1000-"})
    assert (part.status_code, part.content) == (206, content[1000:])


def test_what_is_no_site_and_a_key_without_a_certificate_are_told(tmp_path: Path) -> None:
    for arguments, code in (
        ([tmp_path], 3),
        ([tmp_path, "--key", "x.pem"], 2),
        ([tmp_path, "--address", "127.0.0.2"], 2),  # nobody else reaches it unless asked
    ):
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
