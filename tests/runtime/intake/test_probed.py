"""A base that is new here runs once where a crash harms nobody, and never again for the same engine and CPU."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgekit_runtime.cli import main
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.base_files import BaseFiles
from edgekit_runtime.formats.bundle import file_digest
from edgekit_runtime.intake import child_limits, probed
from edgekit_runtime.intake.canary import try_adapters
from edgekit_runtime.store import Store
from tests.goods import Goods
from tests.raw_gguf import write_aborting

Tried = list[Path]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing is known yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> Tried:
    """The bases that are tried."""
    seen: Tried = []

    def spy(base: BaseFiles, adapters: Any) -> list[bool]:
        seen.append(base.model)
        return try_adapters(base, adapters)

    monkeypatch.setattr(probed, "try_adapters", spy)
    return seen


def ask(*where: str) -> int:
    return main(["run", *where, "--prompt", "scratch", "--max-tokens", "2"])


def test_a_bundle_is_tried_the_first_time_alone(goods: Goods, tried: Tried) -> None:
    assert [ask(str(goods.bundle)), ask(str(goods.bundle))] == [0, 0]
    assert len(tried) == 1


def test_another_engine_or_cpu_tries_again(goods: Goods, tried: Tried, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(str(goods.bundle))
    monkeypatch.setattr("edgekit_runtime.machine._cpu_name", lambda: "another")
    ask(str(goods.bundle))
    monkeypatch.setattr(probed.importlib.metadata, "version", lambda _: "9")
    ask(str(goods.bundle))
    assert len(tried) == 3


def test_a_store_knows_what_was_tried_when_it_was_installed(goods: Goods, tmp_path: Path, tried: Tried) -> None:
    store = Store(tmp_path / "store", create=True)
    store.install(goods.bundle)
    assert ask("--store", str(store.root)) == 0
    assert not tried
    shutil.rmtree(store.root / probed.FOLDER)  # as in one of an earlier version
    assert [ask("--store", str(store.root)), ask("--store", str(store.root))] == [0, 0]
    assert len(tried) == 1
    (store.root / probed.FOLDER / ("0" * 64)).write_text("of a base that is gone")
    store.gc()
    assert len(list((store.root / probed.FOLDER).iterdir())) == 1


def test_where_nothing_can_be_noted_it_is_tried_each_time(goods: Goods, home: Path, tried: Tried) -> None:
    home.write_text("a file")
    assert [ask(str(goods.bundle)), ask(str(goods.bundle))] == [0, 0]
    assert len(tried) == 2


def crashing(bundle: Path, folder: Path) -> Path:
    """The bundle with a base that passes our reader and makes the engine abort, and without adapters."""
    copy = folder / "crashing"
    shutil.copytree(bundle, copy)
    shutil.rmtree(copy / "adapters")
    manifest = json.loads((copy / "manifest.json").read_text())
    path = copy / manifest["base"]["file"]
    path.chmod(0o644)
    write_aborting(path)
    digest = manifest["base"]["digest"] = file_digest(path)
    manifest["files"] = [each for each in manifest["files"] if not each["path"].startswith("adapters")]
    for each in manifest["files"]:
        if each["path"] == manifest["base"]["file"]:
            each["size"], each["sha256"] = path.stat().st_size, digest
    manifest["adapters"], manifest["default_adapter"] = [], None
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy


@pytest.mark.parametrize("command", ["run", "bench", "serve", "install"])
def test_a_base_that_makes_the_engine_abort_is_one_line(
    goods: Goods, tmp_path: Path, command: str, capfd: pytest.CaptureFixture[str]
) -> None:
    bundle, store = str(crashing(goods.bundle, tmp_path)), tmp_path / "store"
    arguments = {
        "run": ["run", bundle, "--prompt", "x"],
        "bench": ["bench", bundle, "--quick"],
        "serve": ["serve", bundle, "--port", "0"],
        "install": ["adapters", "install", bundle, "--store", str(store)],
    }[command]
    assert main(arguments) == InputError.exit_code
    said = capfd.readouterr().err.splitlines()
    assert said[-1].startswith("error: the engine crashes (SIGABRT) over ")
    assert "Traceback" not in "".join(said)
    assert not list(store.glob("objects/sha256/*"))


def limited(code: str) -> subprocess.CompletedProcess[str]:
    """Python under our limits."""
    start = "from edgekit_runtime.intake.child_limits import *; "
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", start + code]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)


def test_a_process_that_wants_too_much_memory_gets_none() -> None:
    done = limited(f"limit_memory(1 << 20); bytearray({child_limits.SPARE_MEMORY + (8 << 20)})")
    assert done.returncode == 1
    assert done.stderr.strip().endswith("MemoryError")
    assert limited("limit_memory(1 << 20); bytearray(1 << 28)").returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_it_leaves_no_core_dump_and_is_killed_first() -> None:
    code = "import resource; limit_memory(1); print(resource.getrlimit(resource.RLIMIT_CORE)[0], end=' '); "
    assert limited(code + "print(open('/proc/self/oom_score_adj').read())").stdout.split() == ["0", "1000"]


def test_it_ends_by_the_clock_and_by_what_it_computes() -> None:
    assert -limited("import time; limit_time(0.1); time.sleep(50)").returncode == signal.SIGALRM
    code = "import signal; limit_time(0.1); signal.alarm(0)\nwhile True: pass"
    assert -limited(code).returncode == signal.SIGXCPU


@pytest.mark.parametrize("number", ["SIGALRM", "SIGXCPU"])
def test_a_child_that_ran_out_of_time_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: str) -> None:
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\nkill -{number.removeprefix('SIG')} $$\n")
    path.chmod(0o755)
    monkeypatch.setattr("edgekit_runtime.intake.canary.sys.executable", str(path))
    with pytest.raises(InputError, match="the engine hangs over"):
        try_adapters(BaseFiles("llama.cpp", tmp_path / "base.gguf"), [])
