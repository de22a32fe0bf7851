"""What can't be run never becomes active, whichever way it comes, and leaves everything as it was."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from edgekit_exporters.gguf.metadata import rewrite_metadata
from edgekit_runtime.cli import main
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.adapter import KEY_ALPHA
from edgekit_runtime.formats.base_files import BaseFiles
from edgekit_runtime.formats.bundle import file_digest
from edgekit_runtime.formats.gguf import read_gguf
from edgekit_runtime.store import Store
from tests.goods import Goods
from tests.runtime.runtime.test_runtime import change_adapter
from tests.runtime.store.test_store import _active, _files

Change = Callable[[Path], None]


@pytest.fixture
def store(goods: Goods, tmp_path: Path) -> Store:
    made = Store(tmp_path / "store", create=True)
    made.install(goods.bundle)
    return made


def put_nan(path: Path) -> None:
    """In the last matrix."""
    tensor = list(read_gguf(path).tensors.values())[-1]
    content = bytearray(path.read_bytes())
    content[tensor.offset : tensor.offset + 2] = b"\x00\x7e"
    path.write_bytes(content)


def fill(path: Path, half: str, value: float, *, ranks: slice = slice(None)) -> None:
    """Set all of A or all of B of every pair, or some of its ranks."""
    content = np.memmap(path, np.uint8, "r+")
    for name, tensor in read_gguf(path).tensors.items():
        if name.endswith(half):
            columns, rows = tensor.shape
            matrix = content[tensor.offset : tensor.offset + tensor.size].view("<f2").reshape(rows, columns)
            (matrix.T if half.endswith("b") else matrix)[ranks] = value
    content.flush()


def clear(path: Path) -> None:
    fill(path, ".lora_b", 0)


def part(path: Path) -> None:
    """Neither A nor B is zero, and their product is."""
    fill(path, ".lora_a", 0, ranks=slice(1, None))
    fill(path, ".lora_b", 0, ranks=slice(0, 1))


def overflow(path: Path) -> None:
    fill(path, ".lora_a", 65504)
    fill(path, ".lora_b", 65504)
    old = path.read_bytes()
    start, end = read_gguf(path).spans[KEY_ALPHA]
    path.write_bytes(old[: end - 4] + struct.pack("<f", 9e5) + old[end:])
    assert start < end


def other_alpha(path: Path) -> None:
    plain = path.with_suffix(".plain")
    path.rename(plain)
    rewrite_metadata(plain, path, {KEY_ALPHA: 8})  # as U32
    plain.unlink()


BAD: list[tuple[Change, str]] = [
    (put_nan, "NaN or infinite"),
    (clear, "changes nothing"),
    (other_alpha, "stored as U32|stored as I64"),
]


def changed(goods: Goods, tmp_path: Path, change: Change) -> Path:
    path = Path(shutil.copy(goods.two, tmp_path / "changed.gguf"))
    path.chmod(0o644)
    change(path)
    return path


@pytest.mark.parametrize(("change", "why"), BAD)
def test_a_bad_adapter_changes_nothing(store: Store, goods: Goods, tmp_path: Path, change: Change, why: str) -> None:
    path, before = changed(goods, tmp_path, change), _files(store.root)
    with pytest.raises(InputError, match=why):
        store.install(path)
    assert main(["adapters", "install", str(path), "--store", str(store.root)]) == 3
    assert _files(store.root) == before


@pytest.mark.parametrize(("change", "why"), BAD)
def test_a_bundle_with_a_bad_adapter_changes_nothing(
    store: Store, goods: Goods, tmp_path: Path, change: Change, why: str
) -> None:
    bundle = change_adapter(goods.later_bundle, tmp_path, lambda path, _: change(path))
    before = _files(store.root)
    with pytest.raises(InputError, match=why):
        store.install(bundle)
    assert _files(store.root) == before
    empty = Store(tmp_path / "empty", create=True)
    with pytest.raises(InputError, match=why):
        empty.install(bundle)
    assert empty.current() is None
    assert not list(empty.root.glob("objects/sha256/*"))


def test_a_manifest_that_contradicts_its_file_changes_nothing(store: Store, goods: Goods, tmp_path: Path) -> None:
    def lie(_: Path, manifest: dict[str, list[dict[str, int]]]) -> None:
        manifest["adapters"][0]["rank"] = 8

    before = _files(store.root)
    with pytest.raises(InputError, match="rank 8 in the manifest, and 4 in its file"):
        store.install(change_adapter(goods.later_bundle, tmp_path, lie))
    assert _files(store.root) == before


def test_only_the_engine_finds_out_and_still_nothing_changes(store: Store, goods: Goods, tmp_path: Path) -> None:
    path, before = changed(goods, tmp_path, overflow), _files(store.root)
    with pytest.raises(InputError, match="computes what is no number"):
        store.install(path)
    assert _files(store.root) == before


def test_an_adapter_without_effect_is_installed_with_a_warning(
    store: Store, goods: Goods, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = changed(goods, tmp_path, part)
    assert main(["adapters", "install", str(path), "--store", str(store.root), "--json"]) == 0
    (note,) = json.loads(capsys.readouterr().out)["notes"]
    assert note.startswith("two 1.0.0 changes nothing on tiny-chat")
    store.rollback()
    assert main(["adapters", "install", str(path), "--store", str(store.root)]) == 0
    assert f"warning: {note}\n" in capsys.readouterr().out
    assert _active(store) == ["one 1.0.0", "two 1.0.0"]


class Recorder:
    """A trial that notes what it is asked, and refuses on demand."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.bad: str | None = None

    def __call__(self, base: BaseFiles, adapters: Sequence[Path]) -> list[bool]:
        assert base.model.is_file()
        self.asked.append([file_digest(each) for each in adapters])
        if self.bad in self.asked[-1]:
            raise InputError("the engine crashes over it", "export it again")
        return [True] * len(adapters)


def test_what_has_not_been_active_together_is_tried_and_nothing_else(
    goods: Goods, tmp_path: Path, other_base: Path
) -> None:
    trial = Recorder()
    store = Store(tmp_path / "store", create=True, trial=trial)
    one, newer, two = (file_digest(each) for each in (_one(goods.bundle), goods.one_newer, goods.two))
    store.install(goods.bundle)
    store.install(goods.bundle)  # all the same
    store.install(goods.later_bundle)  # of the same base and adapter
    store.install(goods.one_newer)
    store.activate("one")
    store.activate("one", "1.0.0")
    store.rollback()  # leads to what was active: it is never refused
    store.install(goods.two, tried={two})
    store.remove("two")
    store.rollback()
    assert trial.asked == [[one], [newer], [one]]
    trial.asked.clear()
    store.install(other_base, allow_downgrade=True)  # the adapters that stay have to run on it too
    assert [sorted(each) for each in trial.asked] == [sorted([one, two])]
    store.activate("one", "1.10")
    assert trial.asked[1:] == [[newer]]


def test_a_new_base_is_refused_when_an_adapter_that_stays_can_not_run_on_it(
    goods: Goods, tmp_path: Path, other_base: Path
) -> None:
    trial = Recorder()
    store = Store(tmp_path / "store", create=True, trial=trial)
    store.install(goods.bundle)
    store.install(goods.two)
    trial.bad, before = file_digest(goods.two), _files(store.root)
    with pytest.raises(InputError, match="crashes over"):
        store.install(other_base)
    assert _files(store.root) == before


def test_an_activation_is_refused_when_the_engine_can_not_run_it(goods: Goods, tmp_path: Path) -> None:
    trial = Recorder()
    store = Store(tmp_path / "store", create=True, trial=trial)
    store.install(goods.bundle)
    store.install(goods.one_newer)
    trial.bad, before = file_digest(_one(goods.bundle)), _files(store.root)
    with pytest.raises(InputError, match="crashes over"):
        store.activate("one", "1.0.0")
    assert _files(store.root) == before


def test_a_machine_without_the_engine_says_that_nothing_was_tried(
    goods: Goods, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekit_runtime.intake.canary._LLAMA_MODULE", "llama_cpp_that_is_not_there")
    told: list[str] = []
    store = Store(tmp_path / "store", create=True)
    assert store.install(goods.bundle, tell=told.append) == ["one 1.0.0"]
    assert told == ["nothing was tried on the engine, as llama_cpp_that_is_not_there is not installed here"]


@pytest.fixture
def other_base(goods: Goods, tmp_path: Path) -> Path:
    return goods.other_base(tmp_path)


def _one(bundle: Path) -> Path:
    return next((bundle / "adapters").glob("one-*.gguf"))
