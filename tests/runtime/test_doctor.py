from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from edgekit_runtime.cli import main


def test_a_sound_bundle_is_tried_with_each_adapter(demo_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(demo_bundle), "--json"]) == 0
    checks = {check["what"]: check for check in json.loads(capsys.readouterr().out)}
    assert {"machine", "engine", "storage", "bundle", "memory", "answer of base", "answer of one"} <= checks.keys()
    assert all(check["ok"] for check in checks.values())
    assert "tokens/s" in checks["answer of two"]["found"]


def test_a_damaged_bundle_fails_with_its_reason(
    demo_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(demo_bundle, tmp_path / "bad")
    (tmp_path / "bad" / "adapters" / "one-1.0.0.gguf").unlink()
    assert main(["doctor", str(tmp_path / "bad")]) == 3
    output = capsys.readouterr()
    assert "FAIL  bundle: " in output.out
    assert "one-1.0.0.gguf is missing" in output.out
    assert output.err.startswith("error: not fit to run (bundle)")


def test_without_a_bundle_machine_and_engine_are_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    assert "llama-cpp-python" in capsys.readouterr().out
