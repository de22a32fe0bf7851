"""Install, activate, roll back, remove: each is one switch, and what is wrong changes nothing."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit_runtime import Runtime
from edgekit_runtime.cli import main
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.signing import make_key, sign
from edgekit_runtime.store import Store
from edgekit_runtime.store.transitions import version_key
from tests.goods import Goods


@pytest.fixture
def store(goods: Goods, tmp_path: Path) -> Store:
    made = Store(tmp_path / "store", create=True)
    made.install(goods.bundle)
    return made


def _active(store: Store) -> list[str]:
    return [f"{each.name} {each.version}" for each in store.installed() if each.active]


def _files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_store_answers_as_the_bundle_that_was_installed(store: Store, goods: Goods) -> None:
    with Runtime(goods.bundle, threads=1) as bundle, Runtime(store.root, threads=1) as installed:
        expected = bundle.generate("scratch", max_tokens=8)
        assert installed.generate("scratch", max_tokens=8).text == expected.text
        assert installed.manifest.default_adapter == "one"


def test_a_bundle_installs_from_a_tar_too(goods: Goods, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "line-3.tar", "w") as tar:
        tar.add(goods.bundle, "line-3")
    store = Store(tmp_path / "store", create=True)
    assert store.install(tmp_path / "line-3.tar") == ["one 1.0.0"]


def test_an_adapter_file_is_active_once_installed_and_the_older_version_stays_at_hand(
    store: Store, goods: Goods
) -> None:
    assert store.install(goods.one_newer) == ["one 1.10"]
    assert _active(store) == ["one 1.10"]
    store.activate("one", "1.0.0")
    assert _active(store) == ["one 1.0.0"]
    store.activate("one")  # the newest: 1.10 comes after 1.9 and 1.0.0
    assert _active(store) == ["one 1.10"]


def test_rollback_leads_back_step_by_step(store: Store, goods: Goods) -> None:
    store.install(goods.two)
    store.remove("one")
    assert _active(store) == ["two 1.0.0"]
    store.rollback()
    assert _active(store) == ["one 1.0.0", "two 1.0.0"]
    store.rollback()
    assert _active(store) == ["one 1.0.0"]
    with pytest.raises(InputError, match="no earlier generation"):
        store.rollback()
    store.install(goods.two)  # numbers are never used twice, so what was rolled back can't come back by itself
    assert _active(store) == ["one 1.0.0", "two 1.0.0"]


def test_a_lora_of_another_tool_installs_as_unverified(store: Store, goods: Goods) -> None:
    store.install(goods.nameless)
    assert {each.name: each.verified for each in store.installed()} == {"from-elsewhere": False, "one": True}


def test_a_bundle_over_the_same_base_keeps_the_other_adapters(store: Store, goods: Goods) -> None:
    store.install(goods.two)
    store.install(goods.later_bundle)
    assert _active(store) == ["one 1.0.0", "two 1.0.0"]


def test_an_older_bundle_or_adapter_needs_to_be_asked_for(store: Store, goods: Goods) -> None:
    store.install(goods.later_bundle)
    with pytest.raises(InputError, match=r"2026\.01\.01 is older.*--allow-downgrade"):
        store.install(goods.bundle)
    store.install(goods.bundle, allow_downgrade=True)
    assert store.current() is not None


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("base/model.gguf", _truncate),
        ("base/model.gguf", _flip),
        ("adapters/one-1.0.0.gguf", _truncate),
        ("adapters/one-1.0.0.gguf", _flip),
        ("manifest.json", _truncate),
    ],
)
def test_a_damaged_bundle_changes_nothing(
    store: Store, goods: Goods, tmp_path: Path, file: str, damage: Callable[[Path], None]
) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(goods.later_bundle, bad)
    damage(bad / file)
    before = _files(store.root)
    with pytest.raises(InputError):
        store.install(bad)
    assert _files(store.root) == before


def test_an_adapter_of_another_base_changes_nothing(store: Store, goods: Goods) -> None:
    before = _files(store.root)
    with pytest.raises(InputError, match="another-base"):
        store.install(goods.other_family)
    assert _files(store.root) == before


def test_an_adapter_needs_a_base_first(goods: Goods, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="install a bundle first"):
        Store(tmp_path / "empty", create=True).install(goods.two)


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_full_or_failing_disk_leaves_the_old_state(
    store: Store, goods: Goods, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    before = _files(store.root)

    def fail(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(*((os, "fsync") if call == "fsync" else (Path, "replace")), fail)
        with pytest.raises(OSError, match=os.strerror(code)):
            store.install(goods.two)
    assert _files(store.root) == before
    store.install(goods.two)
    assert _active(store) == ["one 1.0.0", "two 1.0.0"]


def test_room_is_checked_before_anything_is_copied(store: Store, goods: Goods, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(store.root)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InputError, match="MiB free, and this needs"):
        store.install(goods.two)


def test_what_changes_nothing_is_no_generation(store: Store, goods: Goods) -> None:
    store.install(goods.two)
    number = store.number
    store.install(goods.two)
    store.activate("one")
    store.install(goods.bundle)
    assert store.number == number
    store.rollback()  # to before the adapter came, however often it was installed
    assert _active(store) == ["one 1.0.0"]


def test_gc_removes_what_no_kept_generation_needs(store: Store, goods: Goods) -> None:
    store.install(goods.two)
    store.remove("two")
    assert store.gc() == (0, 0)  # a rollback may still need it
    for _ in range(5):
        store.install(goods.nameless)
        store.remove("from-elsewhere")
    store.install(goods.nameless)
    count, size = store.gc()
    assert (count, size) == (1, goods.two.stat().st_size)
    assert store.bundle().manifest.adapters[0].name == "one"


def test_a_damaged_generation_is_told_and_rolled_back(store: Store, goods: Goods) -> None:
    number = store.install(goods.two) and store.current().number  # type: ignore[union-attr]
    (store.root / "generations" / f"{number}.json").write_text("{")
    with pytest.raises(InputError, match="rollback"):
        store.bundle()
    store.rollback()
    assert _active(store) == ["one 1.0.0"]


def test_gc_goes_on_past_a_damaged_generation_and_a_rollback_too(store: Store, goods: Goods) -> None:
    store.install(goods.two)
    store.remove("two")
    store.install(goods.nameless)
    (store.root / "generations" / "3.json").write_text("{")
    assert store.gc() == (0, 0)  # generation 2 needs adapter two still
    assert not (store.root / "generations" / "3.json").exists()
    assert store.rollback() == 2
    assert _active(store) == ["one 1.0.0", "two 1.0.0"]


def test_gc_removes_nothing_while_the_current_generation_is_damaged(store: Store, goods: Goods) -> None:
    store.install(goods.two)
    (store.root / "generations" / "2.json").write_text("{")
    before = _files(store.root)
    with pytest.raises(InputError, match="damaged"):
        store.gc()
    assert _files(store.root) == before


@pytest.mark.parametrize("content", ["", "x", "99"])
def test_a_damaged_pointer_is_mended_by_a_rollback_or_by_a_bundle(store: Store, goods: Goods, content: str) -> None:
    store.install(goods.two)
    (store.root / "current").write_text(content)
    with pytest.raises(InputError, match="roll"):
        store.bundle()
    store.rollback()
    assert _active(store) == ["one 1.0.0", "two 1.0.0"]
    (store.root / "current").write_text(content)
    store.install(goods.bundle)
    assert _active(store) == ["one 1.0.0"]


def test_a_store_that_trusts_a_key_installs_nothing_else(store: Store, goods: Goods, tmp_path: Path) -> None:
    public = make_key(tmp_path / "line-3.key")
    store.trust(public)
    later, two = tmp_path / "later", tmp_path / "two.gguf"
    shutil.copytree(goods.later_bundle, later)
    shutil.copyfile(goods.two, two)
    for unsigned in (later, two):
        with pytest.raises(InputError, match="not signed"):
            store.install(unsigned)
        sign(unsigned, tmp_path / "line-3.key")
        store.install(unsigned)
    assert _active(store) == ["one 1.0.0", "two 1.0.0"]
    manifest = later / "manifest.json"
    manifest.write_text(manifest.read_text().replace("You are terse.", "You are bribed"))
    with pytest.raises(InputError, match="altered or signed by nobody"):
        store.install(later)


def test_the_command_line_installs_lists_and_runs(
    goods: Goods, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--store", str(tmp_path / "store")]
    assert main(["adapters", "list", *where]) == 3
    assert "install a bundle first" in capsys.readouterr().err
    assert main(["adapters", "install", str(goods.bundle), *where]) == 0
    assert main(["adapters", "install", str(goods.two), *where]) == 0
    capsys.readouterr()
    assert main(["adapters", "list", "--json", *where]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [(each["name"], each["active"]) for each in listed["adapters"]] == [("one", True), ("two", True)]
    assert main(["run", *where, "--adapter", "two", "--prompt", "scratch", "--max-tokens", "4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["adapter"] == "two"
    assert main(["adapters", "rollback", *where]) == 0
    assert main(["run", *where, "--adapter", "two", "--prompt", "scratch"]) == 3
    assert main(["adapters", "activate", *where]) == 2


@given(st.lists(st.integers(0, 99), min_size=1, max_size=4), st.lists(st.integers(0, 99), min_size=1, max_size=4))
def test_versions_are_ordered_by_number(one: list[int], other: list[int]) -> None:
    keys = [version_key(".".join(map(str, each))) for each in (one, other)]
    assert (keys[0] < keys[1]) == (one < other)


def test_a_release_is_newer_than_what_led_to_it() -> None:
    order = ["1.0-rc1", "1.0-rc2", "1.0", "1.0.1", "1.1"]
    keys = [version_key(each) for each in order]
    assert keys == sorted(keys)
