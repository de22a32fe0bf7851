"""With --json there is one JSON document on stdout, and nothing else there."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekit.cli.program import main
from tests.goods import Goods


@pytest.fixture
def document(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    def run(*words: object, code: int = 0) -> Any:
        assert main([*map(str, words), "--json"]) == code, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    return run


def test_a_project_and_its_keys(tmp_path: Path, document: Callable[..., Any]) -> None:
    assert document("init", tmp_path / "line-3") == {"project": str(tmp_path / "line-3" / "edgekit.yaml")}
    key = tmp_path / "line-3.key"
    assert document("keygen", key) == {"private": str(key), "public": f"{key}.pub"}


def test_a_bundle(goods: Goods, tmp_path: Path, document: Callable[..., Any]) -> None:
    verified = document("verify", goods.bundle)
    assert set(verified) == {"bundle", "version", "files", "ok"}
    assert verified["ok"] is True
    planned = document("plan", goods.bundle, "--device", "raspberry-pi-5", "--prompt-tokens", "64")
    assert planned["device"]["name"] == "raspberry-pi-5"
    made = document("site", goods.bundle, "--output", tmp_path / "site")
    assert made["site"] == str(tmp_path / "site")


def test_devices(document: Callable[..., Any]) -> None:
    names = [each["name"] for each in document("devices")]
    assert document("devices", "list") == document("devices")
    for name in names:
        assert document("devices", "show", name)["name"] == name
    assert set(document("devices", "detect")) >= {"profile", "lacking", "architecture"}


@pytest.mark.parametrize(("words", "code"), [(["verify", "nowhere"], 3), (["keygen"], 2), (["plan"], 3)])
def test_an_error_leaves_stdout_empty(words: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--json"]) == code
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)


def test_lines_that_move_on_a_terminal_stay_out_of_it(tiny_project: Callable[..., Path], tmp_path: Path) -> None:
    folder = tiny_project()
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "edgekit", "train", "small", "--project", str(folder), "--json"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    out = tmp_path / "out"
    with out.open("w") as stdout:
        process = subprocess.Popen(command, stdout=stdout, stderr=theirs, stdin=subprocess.DEVNULL, env=environment)
    os.close(theirs)
    said = b""
    try:
        while piece := os.read(ours, 4096):
            said += piece
    except OSError:  # so Linux says that the other side has been closed
        pass
    assert process.wait(timeout=300) == 0, said.decode()
    os.close(ours)
    assert json.loads(out.read_text()) == {"adapters": {"small": str(folder / "adapters" / "small")}}
    assert b"training small: 3 of 3 steps" in said
    assert b"\x1b[?25l" in said
    assert said.rindex(b"\x1b[?25h") > said.rindex(b"\x1b[?25l")  # the cursor is there again
