from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgekit_runtime import Runtime
from edgekit_runtime.cli import main
from tests.goods import Goods
from tests.runtime.runtime.test_runtime import change_adapter
from tests.runtime.store.test_admission import overflow, part


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


def checks_of(bundle: Path, capsys: pytest.CaptureFixture[str], *, code: int) -> dict[str, dict[str, Any]]:
    assert main(["doctor", str(bundle), "--json"]) == code
    return {check["what"]: check for check in json.loads(capsys.readouterr().out)}


def test_each_adapter_is_tried_for_its_effect(goods: Goods, capsys: pytest.CaptureFixture[str]) -> None:
    checks = checks_of(goods.bundle, capsys, code=0)
    assert "8 tokens" in checks["answer of one"]["found"]
    assert checks["effect of one"]["ok"]


def test_a_dead_adapter_is_not_fit(goods: Goods, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = change_adapter(goods.bundle, tmp_path, lambda path, _: part(path))
    checks = checks_of(bundle, capsys, code=3)
    assert [what for what, check in checks.items() if not check["ok"]] == ["effect of one"]
    assert "adapters remove one" in checks["effect of one"]["found"]


def test_an_adapter_that_computes_no_numbers_is_not_fit(
    goods: Goods, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = checks_of(change_adapter(goods.bundle, tmp_path, lambda path, _: overflow(path)), capsys, code=3)
    assert checks["answer of base"]["ok"]
    assert "computes what is no number" in checks["answer of one"]["found"]
    assert "effect of one" not in checks


def test_an_adapter_that_ends_its_answer_at_once_is_fit(
    goods: Goods, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each token ends an answer, as far as the vocabulary is asked."""
    monkeypatch.setattr("edgekit_runtime.engines.llama.engine.LlamaEngine.is_end", lambda *_: True)
    with Runtime(goods.bundle, threads=1) as runtime:
        assert runtime.generate("x", max_tokens=8).usage.completion_tokens == 0
        assert runtime.trial([1, 2, 3], "one", tokens=8).tokens == 8


@pytest.mark.parametrize(
    ("script", "why"),
    [("kill -SEGV $$", "crashes (SIGSEGV)"), ("exec sleep 60", "it hangs"), ("exit 0", "says nothing")],
)
def test_an_engine_that_crashes_hangs_or_says_nothing_is_found(
    goods: Goods,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    why: str,
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho '{json.dumps({'trying': 'answer of base'})}'\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr("edgekit_runtime.cli.doctor.sys.executable", str(python))
    monkeypatch.setattr("edgekit_runtime.cli.doctor.SILENT_SECONDS", 1.0)
    checks = checks_of(goods.bundle, capsys, code=3)
    assert why in checks["answer of base"]["found"]


def test_a_place_that_is_not_there_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(tmp_path / "no" / "where")]) == 3
    assert "there is no bundle" in capsys.readouterr().out
