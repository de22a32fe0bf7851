"""Adapters in memory, against a model of what may be there."""

from __future__ import annotations

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
