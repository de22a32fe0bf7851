"""The process that tries a base and adapters: whatever the engine does in it is an answer or a refusal."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit_runtime.engines import forced_logits
from edgekit_runtime.engines.llama.engine import LlamaEngine
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.adapter import EMBEDDING
from edgekit_runtime.formats.base_files import BaseFiles
from edgekit_runtime.intake import canary
from edgekit_runtime.intake.canary import try_adapters, try_adapters_async
from tests.tiny_gguf import ALPHA, EXPERTS, KEY, WIDTH, matrices, write_base, write_lora

Try = Callable[..., list[bool]]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseFiles:
    return BaseFiles("llama.cpp", write_base(tmp_path_factory.mktemp("base") / "base.gguf"))


@pytest.fixture(params=["sync", "async"])
def run(request: pytest.FixtureRequest) -> Try:
    """Both ways to ask."""
    if request.param == "sync":
        return try_adapters
    return lambda files, adapters: asyncio.run(try_adapters_async(files, adapters))


def apart(path: Path) -> Path:
    """An adapter whose A and B are not zero and whose product is: A has one rank, B another."""
    arrays = matrices()
    for name, each in arrays.items():
        (each[1:] if name.endswith("a") else each[:, :1])[:] = 0
    return write_lora(path, arrays)


def test_it_tells_which_adapters_change_anything(base: BaseFiles, tmp_path: Path, run: Try) -> None:
    living = write_lora(tmp_path / "living.gguf", matrices())
    assert run(base, [living, apart(tmp_path / "dead.gguf"), living]) == [True, False, True]
    assert run(base, []) == []


def test_an_activated_adapter_is_tried_with_what_activates_it(base: BaseFiles, tmp_path: Path) -> None:
    from edgekit_exporters.gguf.metadata import rewrite_metadata

    plain = write_lora(tmp_path / "plain.gguf", matrices())
    rewrite_metadata(plain, tmp_path / "activated.gguf", {"adapter.alora.invocation_tokens": [40, 41]})
    assert try_adapters(base, [tmp_path / "activated.gguf"]) == [True]


def test_logits_that_are_no_numbers_are_refused(base: BaseFiles, tmp_path: Path, run: Try) -> None:
    """Each value is a number, and their product is none."""
    huge = {name: np.full_like(each, 3e38) for name, each in matrices().items()}
    with pytest.raises(InputError, match=r"huge\.gguf computes what is no number"):
        run(base, [write_lora(tmp_path / "huge.gguf", huge)])


def test_a_base_that_computes_no_numbers_is_refused(tmp_path: Path, run: Try) -> None:
    broken = {"output.weight": np.full((64, WIDTH), np.nan, np.float32)}
    path = write_base(tmp_path / "broken.gguf", merged=broken)
    with pytest.raises(InputError, match=r"the base .*broken\.gguf computes what is no number"):
        run(BaseFiles("llama.cpp", path), [])


def test_an_abort_of_the_engine_names_the_adapter(tmp_path: Path, run: Try) -> None:
    """llama.cpp multiplies the output matrix of a tied base with an embedding's A, whose sides don't fit."""
    tied = BaseFiles("llama.cpp", write_base(tmp_path / "tied.gguf", tied=True))
    sound = write_lora(tmp_path / "sound.gguf", matrices())
    bad = write_lora(tmp_path / "bad.gguf", matrices(EMBEDDING, rank=4))
    with pytest.raises(InputError, match=r"crashes \(SIGABRT\) over .*bad\.gguf: "):
        run(tied, [sound, bad])


def test_what_the_engine_refuses_is_told_in_its_words(base: BaseFiles, tmp_path: Path, run: Try) -> None:
    sound = write_lora(tmp_path / "sound.gguf", matrices())
    with pytest.raises(InputError, match=r"llama\.cpp refuses .*nowhere"):
        run(BaseFiles("llama.cpp", tmp_path / "nowhere"), [sound])
    arrays = {name.replace("blk.0", "blk.7"): each for name, each in matrices().items()}
    with pytest.raises(InputError, match=r"llama\.cpp refuses the adapter .*does not exist in base"):
        run(base, [write_lora(tmp_path / "other.gguf", arrays)])


def python(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """A shell script in the place of the child's Python."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr("edgekit_runtime.intake.canary.sys.executable", str(path))


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("kill -SEGV $$", r"crashes \(SIGSEGV\) over .*base\.gguf: copy the base again"),
        ("""echo '{"trying": "x.gguf"}'; kill -ILL $$""", r"crashes \(SIGILL\) over x\.gguf: "),
        ("echo gone wrong >&2; exit 1", r"crashes \(gone wrong\)"),
        ("exit 0", "says nothing about"),
        ("echo 'not json'; echo '[1]'; echo '{\"tried\"'", "says nothing about"),
        ("sleep 60", "hangs over"),
    ],
)
def test_a_child_that_does_not_say_that_all_is_well_is_a_refusal(
    base: BaseFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Try, script: str, why: str
) -> None:
    sound = write_lora(tmp_path / "sound.gguf", matrices())
    python(monkeypatch, tmp_path, script.replace("sleep", "exec sleep"))
    monkeypatch.setattr(canary, "SECONDS", 1.0)
    with pytest.raises(InputError, match=why):
        run(base, [sound])


def test_the_child_ends_when_nobody_waits_any_more(
    base: BaseFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = tmp_path / "pid"
    python(monkeypatch, tmp_path, f"echo $$ > {note}.part; mv {note}.part {note}; exec sleep 60")

    async def give_up() -> None:
        asked = asyncio.create_task(try_adapters_async(base, []))
        while not note.exists():
            await asyncio.sleep(0.01)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked

    asyncio.run(give_up())
    end = time.monotonic() + 10
    while _lives(int(note.read_text())) and time.monotonic() < end:
        time.sleep(0.01)
    assert not _lives(int(note.read_text()))


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _logits(base: Path, lora: Path | None = None) -> Any:
    engine = LlamaEngine(base, context=32, threads=1)
    try:
        if lora is not None:
            engine.load_adapter("a", lora)
        return forced_logits(engine, [1, 40, 3, 22], () if lora is None else (("a", 1.0),))
    finally:
        engine.close()


@pytest.mark.parametrize("target", [KEY, EMBEDDING, "output.weight", "blk.0.ffn_down_exps.weight"])
def test_what_is_taken_works_as_if_it_were_merged(tmp_path: Path, target: str) -> None:
    """The sides of A and B that our reader takes are those that llama.cpp multiplies."""
    experts = target.endswith("_exps.weight")
    arrays = matrices(target, rank=4, many=(EXPERTS,) if experts else ())
    a, b = arrays[f"{target}.lora_a"], arrays[f"{target}.lora_b"]
    update = (a @ b.T if target == EMBEDDING else b @ a) * np.float32(ALPHA / 4)
    base = write_base(tmp_path / "base.gguf", experts=experts)
    merged = write_base(tmp_path / "merged.gguf", experts=experts, merged={target: update})
    found, expected = _logits(base, write_lora(tmp_path / "a.gguf", arrays)), _logits(merged)
    assert np.abs(expected - _logits(base)).max() > 0.1
    assert np.allclose(found, expected, rtol=1e-3, atol=1e-3)
