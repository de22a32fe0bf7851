"""Adapters in memory, against a model of what may be there."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit_runtime import InputError
from edgekit_runtime.engines import ReadyAdapter
from edgekit_runtime.scheduler import AdapterPool

SIZES = {"a": 10, "b": 20, "c": 30, "d": 60}
LIMIT = 60


class Shelf:
    """The loading half of an engine."""

    def __init__(self) -> None:
        self.loaded: set[str] = set()

    def load_adapter(self, name: str, adapter: ReadyAdapter) -> int:
        assert name not in self.loaded
        self.loaded.add(name)
        return SIZES[name]

    def unload_adapter(self, name: str) -> None:
        self.loaded.remove(name)


def files(names: Any) -> dict[str, Path]:
    return {name: Path(name) for name in names}


def plain(digest: str, path: Path) -> ReadyAdapter:
    return ReadyAdapter(path, path)


def make(shelf: Shelf, ready: Callable[[str, Path], ReadyAdapter] = plain) -> AdapterPool:
    return AdapterPool(cast(Any, shelf), limit=LIMIT, ready=ready, check=lambda path, digest: None)


@given(st.lists(st.one_of(st.frozensets(st.sampled_from("abcd"), max_size=2), st.integers(0, 5))))
def test_what_is_held_stays_and_the_rest_fits(steps: list[frozenset[str] | int]) -> None:
    shelf = Shelf()
    pool = make(shelf)
    held: list[frozenset[str]] = []
    for step in steps:
        if isinstance(step, int):
            if held:
                pool.release(files(held.pop(step % len(held))))
            continue
        together = set().union(step, *held)
        try:
            got = pool.hold(files(sorted(step)))
        except InputError:
            assert sum(SIZES[name] for name in step) > LIMIT
            continue
        assert got == (sum(SIZES[name] for name in together) <= LIMIT)
        if got:
            held.append(step)
        assert set().union(*held) <= shelf.loaded
        assert pool.size == sum(SIZES[name] for name in shelf.loaded) <= LIMIT


def test_the_longest_unused_goes_first() -> None:
    shelf = Shelf()
    pool = make(shelf)
    for name in ("a", "b", "c", "a", "b", "a"):
        assert pool.hold(files(name))
        pool.release(files(name))
    assert pool.hold(files("c"))
    assert shelf.loaded == {"a", "b", "c"}
    pool.release(files("c"))
    assert pool.hold(files("d"))
    assert shelf.loaded == {"d"}
    assert pool.evictions == 3


def test_waiting_loads_nothing_again_and_again() -> None:
    shelf = Shelf()
    pool = make(shelf)
    assert pool.hold(files("d"))
    for _ in range(3):
        assert not pool.hold(files("a"))
    assert pool.loads <= 2
    pool.release(files("d"))
    assert pool.hold(files("a"))


def test_a_refused_file_is_not_loaded() -> None:
    def refuse(digest: str, path: Path) -> ReadyAdapter:
        raise InputError(f"{path} is bad", "mend it")

    shelf = Shelf()
    pool = make(shelf, refuse)
    with pytest.raises(InputError, match="a is bad"):
        pool.hold(files("a"))
    assert not shelf.loaded


class Copies:
    """Copies that were made ready, and which of them are there still."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.open: set[str] = set()
        self.go = threading.Event()

    def ready(self, digest: str, path: Path) -> ReadyAdapter:
        assert self.go.wait(10)
        self.made.append(digest)
        self.open.add(digest)
        return ReadyAdapter(path, path, close=lambda: self.open.remove(digest))


def test_what_is_expected_is_made_ready_once_beside_the_engine() -> None:
    shelf, copies = Shelf(), Copies()
    pool = make(shelf, copies.ready)
    for _ in range(2):
        pool.expect(files("a"))
        assert not pool.hold(files("a"), wait=False)
    assert not shelf.loaded
    copies.go.set()
    assert pool.hold(files("a"))  # waits for the one that was begun
    assert (copies.made, copies.open, shelf.loaded) == (["a"], set(), {"a"})
    pool.expect(files("a"))
    assert pool.hold(files("a"), wait=False)
    assert (copies.made, pool.loads) == (["a"], 1)
    pool.close()


def test_what_is_expected_no_more_is_freed() -> None:
    copies = Copies()
    pool = make(Shelf(), copies.ready)
    copies.go.set()
    pool.expect(files("a"))
    pool.expect(files("b"))
    pool.close()
    assert not copies.open
    assert set(copies.made) <= {"a", "b"}


def test_a_file_that_changes_after_it_was_made_ready_is_not_loaded() -> None:
    changed = False

    def check(path: Path, digest: str) -> None:
        if changed:
            raise InputError(f"{path} has changed", "install it again")

    shelf, copies = Shelf(), Copies()
    pool = AdapterPool(cast(Any, shelf), limit=LIMIT, ready=copies.ready, check=check)
    copies.go.set()
    pool.expect(files("a"))
    changed = True
    with pytest.raises(InputError, match="a has changed"):
        pool.hold(files("a"))
    assert not shelf.loaded
    assert not copies.open
    changed = False
    assert pool.hold(files("a"))
    pool.close()
