"""What was refused is written down, for the engine that refused it, and asking for it again is another chance."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekit_runtime.cli import main
from edgekit_runtime.errors import InputError
from edgekit_runtime.files.private_folder import PrivateFolder
from edgekit_runtime.formats.bundle import file_digest
from edgekit_runtime.formats.manifest import MANIFEST_FILE
from edgekit_runtime.store import Store, refusals
from tests.goods import Goods, with_two_adapters
from tests.runtime.store.test_admission import Recorder

WHY = "the engine crashes (SIGABRT) over it"


@pytest.fixture
def trial() -> Recorder:
    return Recorder()


@pytest.fixture
def store(goods: Goods, tmp_path: Path, trial: Recorder) -> Store:
    made = Store(tmp_path / "store", create=True, trial=trial)
    made.install(goods.bundle)
    made.install(goods.two)
    trial.asked.clear()
    return made


def refuse(store: Store, file: Path) -> str:
    manifest, digest = store.bundle().manifest, file_digest(file)
    store.refusals.note(digest, manifest.base.digest, manifest.engine, WHY)
    return digest


def why(store: Store, digest: str) -> str | None:
    manifest = store.bundle().manifest
    return Store(store.root).refusals.why(digest, manifest.base.digest, manifest.engine)


@pytest.mark.parametrize("again", ["install", "activate"])
def test_what_is_asked_for_again_is_tried_again(store: Store, goods: Goods, trial: Recorder, again: str) -> None:
    two, number, stamp = refuse(store, goods.two), store.number, store.refusals.stamp()

    def ask() -> None:
        store.install(goods.two) if again == "install" else store.activate("two")

    trial.bad = two
    with pytest.raises(InputError, match="crashes over it"):
        ask()
    assert why(store, two) == WHY
    trial.bad = None
    ask()
    assert why(store, two) is None
    assert trial.asked == [[two], [two]]
    assert store.number == number  # nothing else has changed, and services see that something has
    assert store.refusals.stamp() != stamp


def test_what_others_ask_for_tries_and_frees_nothing(store: Store, goods: Goods, trial: Recorder) -> None:
    two = refuse(store, goods.two)
    store.install(goods.one_newer)
    store.rollback()
    store.remove("one")
    assert trial.asked == [[file_digest(goods.one_newer)]]
    assert why(store, two) == WHY


def test_another_version_of_the_engine_is_another_chance(
    store: Store, goods: Goods, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = refuse(store, goods.two)
    assert why(store, two) == WHY
    monkeypatch.setattr(refusals, "versions", lambda engine: {"llama-cpp-python": "99", "edgekit-runtime": "99"})
    assert why(store, two) is None


@pytest.mark.parametrize("content", [b"", b"null", b"[" * 50_000, b"\xff", b"{}", b"x" * 100_000])
def test_a_damaged_note_still_refuses(store: Store, goods: Goods, content: bytes) -> None:
    two = refuse(store, goods.two)
    (note,) = (store.root / refusals.FOLDER).iterdir()
    note.write_bytes(content)
    assert "damaged" in str(why(store, two))
    store.install(goods.two)
    assert why(store, two) is None


def test_a_note_that_can_not_be_written_holds_for_this_process(store: Store, goods: Goods) -> None:
    (store.root / refusals.FOLDER).write_text("no folder")
    with pytest.raises(OSError, match="File exists"):
        refuse(store, goods.two)
    manifest = store.bundle().manifest
    assert store.refusals.why(file_digest(goods.two), manifest.base.digest, manifest.engine) == WHY


def test_the_command_line_tells_what_does_not_answer(
    store: Store, goods: Goods, capsys: pytest.CaptureFixture[str]
) -> None:
    refuse(store, goods.two)
    assert main(["adapters", "list", "--store", str(store.root)]) == 0
    assert f"does not answer: {WHY}" in capsys.readouterr().out
    assert main(["adapters", "list", "--store", str(store.root), "--json"]) == 0
    found = {each["name"]: each["refused"] for each in json.loads(capsys.readouterr().out)["adapters"]}
    assert found == {"one": None, "two": WHY}
    assert main(["run", "--store", str(store.root), "--adapter", "two", "--prompt", "scratch"]) == 3
    assert f"adapter two is set aside: {WHY}" in capsys.readouterr().err


def test_a_stack_does_not_run_while_one_of_its_adapters_is_set_aside(
    goods: Goods, tmp_path: Path, trial: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = with_two_adapters(goods, tmp_path, None)
    manifest = json.loads((bundle / MANIFEST_FILE).read_text())
    parts = [{"name": each["name"], "scale": 0.5, "digest": each["digest"]} for each in manifest["adapters"]]
    manifest |= {"stacks": [{"name": "both", "adapters": parts}]}
    (bundle / MANIFEST_FILE).write_text(json.dumps(manifest))
    store = Store(tmp_path / "store", create=True, trial=trial)
    store.install(bundle)
    asked = ["run", "--store", str(store.root), "--adapter", "both", "--prompt", "scratch", "--max-tokens", "2"]
    assert main(asked) == 0
    refuse(store, goods.two)
    assert main(asked) == 3
    assert f"adapter two is set aside: {WHY}" in capsys.readouterr().err


def test_gc_keeps_what_a_service_answers_with_and_forgets_what_is_gone(store: Store, goods: Goods) -> None:
    two, first = refuse(store, goods.two), store.number
    assert first is not None
    with store.private_folder() as folder:
        assert isinstance(folder, PrivateFolder)
        folder.pin(first)
        store.remove("two")
        for _ in range(12):
            store.install(goods.one_newer)
            store.activate("one", "1.0.0")
        store.gc()
        assert "two" in [entry.name for entry in store.bundle(first).manifest.adapters]
        assert why(store, two) == WHY
    store.gc()
    with pytest.raises(InputError, match=f"no generation {first}"):
        store.bundle(first)
    assert why(store, two) is None
