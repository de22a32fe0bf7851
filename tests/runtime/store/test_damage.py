"""Whatever lies in a store in the place of a generation, the pointer or an object: one line, and a way out."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit_runtime.cli import main
from edgekit_runtime.errors import InputError
from edgekit_runtime.store import Store
from tests.goods import Goods

Put = Callable[[Path], object]


@pytest.fixture
def store(goods: Goods, tmp_path: Path) -> Store:
    """Two generations."""
    made = Store(tmp_path / "store", create=True, trial=lambda base, adapters: [True] * len(adapters))
    made.install(goods.bundle)
    made.install(goods.two)
    return made


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def huge(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(1 << 40)


DAMAGE: dict[str, Put] = {
    "deep": lambda path: path.write_bytes(b"[" * 200_000),
    "deep objects": lambda path: path.write_bytes(b'{"a":' * 200_000),
    "a number without end": lambda path: path.write_bytes(b"9" * 5000),
    "infinite": lambda path: path.write_bytes(b'{"schema": "edgekit.generation/1", "parent": 1e999, "number": 1}'),
    "long digits": lambda path: path.write_bytes(b'{"schema": "edgekit.generation/1", "parent": ' + b"9" * 5000 + b"}"),
    "not UTF-8": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "a list": lambda path: path.write_bytes(b"[]"),
    "a text": lambda path: path.write_bytes(b'"x"'),
    "empty": lambda path: path.write_bytes(b""),
    "endless": endless,
    "huge": huge,
    "a folder": lambda path: path.mkdir(),
    "a FIFO": lambda path: os.mkfifo(path),
    "a link to itself": lambda path: path.symlink_to(path.name),
}


def put(path: Path, how: str) -> None:
    path.unlink()
    DAMAGE[how](path)


def commands(store: Store, *actions: str) -> None:
    for action in actions:
        assert main(["adapters", action, "--store", str(store.root)]) in (0, InputError.exit_code)


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_current_generation_is_left_by_a_rollback(store: Store, how: str) -> None:
    number = store.number
    put(store.root / "generations" / f"{number}.json", how)
    commands(store, "list", "gc")
    assert store.rollback() < (number or 0)
    commands(store, "list", "gc")
    assert store.current() is not None


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_earlier_generation_stops_nothing(store: Store, how: str) -> None:
    put(store.root / "generations" / "1.json", how)
    assert len(store.installed()) == 2
    commands(store, "list", "rollback", "gc")
    assert not os.path.lexists(store.root / "generations" / "1.json")


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_pointer_is_mended_by_an_install(store: Store, goods: Goods, how: str) -> None:
    put(store.root / "current", how)
    with pytest.raises(InputError, match="current"):
        store.installed()
    commands(store, "list", "gc")
    if how == "a folder":
        shutil.rmtree(store.root / "current")
    store.install(goods.bundle)
    assert store.installed()


def test_folders_in_the_place_of_files_are_no_obstacle(store: Store, goods: Goods) -> None:
    objects = store.root / "objects" / "sha256"
    for place in ("tmp/folder/deeper", f"objects/sha256/{'0' * 64}/deeper", "generations/x"):
        (store.root / place).mkdir(parents=True)
    commands(store, "list", "gc", "rollback")
    assert not (store.root / "tmp" / "folder").exists()
    store.install(goods.two)
    digest = next(each.digest for each in store.installed() if each.name == "two")
    (objects / digest).unlink()
    (objects / digest).mkdir()
    with pytest.raises(InputError, match="missing or cut short"):
        store.bundle()
    store.install(goods.two)
    assert store.bundle()


def rot(path: Path) -> None:
    """One bit, in the middle, with the size as it was."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)


@pytest.mark.parametrize("what", ["base", "adapter"])
def test_rot_is_named_with_what_it_belongs_to_and_mended_by_an_install(
    store: Store, goods: Goods, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = store.bundle().manifest
    digest = manifest.base.digest if what == "base" else manifest.adapter("two").digest
    assert not store.rotten()
    rot(store.root / "objects" / "sha256" / digest)
    (found,) = store.rotten()
    assert digest in found
    assert "two 1.0.0" in found if what == "adapter" else manifest.base.family in found
    assert main(["doctor", "--store", str(store.root), "--json"]) == InputError.exit_code
    checks = {check["what"]: check for check in json.loads(capsys.readouterr().out)}
    assert not checks["files"]["ok"]
    assert "install it again" in checks["files"]["found"]
    assert "bundle" not in checks  # nothing is run on what has rotted
    assert main(["serve", "--store", str(store.root), "--port", "0", "--verify"]) == InputError.exit_code
    assert capsys.readouterr().err.startswith("error: ")
    store.install(goods.bundle if what == "base" else goods.two, allow_downgrade=True)
    assert not store.rotten()
    assert main(["doctor", "--store", str(store.root)]) == 0
