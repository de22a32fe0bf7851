"""What one rendering of a chat template may cost: time, output and memory.

Templates come from files that anybody may have made.  The environment that runs them (``template_environment``) counts
each step and looks at each value before it is worked on, so that nothing which can't be interrupted gets large.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import GeneratorType
from typing import Any

SECONDS = 2.0  # of this thread's CPU time
OUTPUT = 8 << 20  # characters, those of macros and blocks included
MEMORY = 128 << 20  # bytes of all values that are made, whether they are kept or not
LARGEST = 4 << 20  # one value, in characters and items
WORK = 1 << 28  # characters that one call may compare
LARGEST_NUMBER = 1 << 16  # bits
DEEPEST_VALUE = 100  # lists in lists
DEEPEST_CALL = 100  # macros, loops and blocks that call themselves
LONGEST_SOURCE = 256 << 10  # characters; published templates have up to 30,000

_STRIDE = 256  # steps between two looks at the clock
_STEP = 48  # bytes that a step may leave behind without being asked
_ITEM = 32  # and an item of a list
_VIEWS: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()))


class OverBudget(Exception):
    """The message says what there is too much of."""


class Budget:
    """What is left for one rendering."""

    def __init__(self) -> None:
        self._memory = self._output = self._work = self._depth = 0
        self._look = _STRIDE
        self._end = time.thread_time() + SECONDS
        self._sizes: dict[int, tuple[Any, int]] = {}  # by id, with the value so that it keeps its id

    def tick(self, work: int = 1) -> None:
        """Some work that leaves nothing behind.

        Raises:
            OverBudget: the time is over.
        """
        self._work += work
        if self._work >= self._look:
            self._look = self._work + _STRIDE
            if time.thread_time() > self._end:
                raise OverBudget(f"takes more than {SECONDS:g} s")

    def put(self, value: Any) -> None:
        """A value that is written."""
        size = len(value) if type(value) is str else self.size(value)
        self.tick(1 + (size >> 10))
        self._output += size
        if self._output > OUTPUT:
            raise OverBudget(f"writes more than {OUTPUT} characters")

    def made(self, value: Any) -> Any:
        """A value that is new; one that is made while it is read is counted then."""
        kind = type(value)
        if kind is GeneratorType or (kind.__module__ == "builtins" and hasattr(kind, "__next__")):
            return self.counted(value)
        size = sys.getsizeof(value, 0)
        if isinstance(value, (list, tuple, dict)):
            size += _ITEM * len(value)
        elif isinstance(value, str) and len(value) > LARGEST:
            raise OverBudget(f"makes a text of more than {LARGEST} characters")
        elif kind is int and value.bit_length() > LARGEST_NUMBER:
            raise OverBudget(f"makes a number of more than {LARGEST_NUMBER} bits")
        self.spend(size)
        return value

    def spend(self, size: int) -> None:
        """Memory for what is about to be made, in bytes."""
        self._memory += _STEP + size
        if self._memory > MEMORY:
            raise OverBudget(f"makes more than {MEMORY >> 20} MiB of values")
        self.tick(1 + (size >> 10))

    def counted(self, items: Iterable[Any]) -> Iterator[Any]:
        """The same items, one step each."""
        for item in items:
            self.spend(0)
            yield item

    def size(self, value: Any, depth: int = 0) -> int:
        """How large a value is when all of it is gone through; one list may stand in another many times.

        Raises:
            OverBudget: larger than :data:`LARGEST`, or deeper than :data:`DEEPEST_VALUE`.
        """
        if isinstance(value, str):
            size = len(value)
        elif isinstance(value, (list, tuple, dict, *_VIEWS)):
            known = self._sizes.get(id(value))
            if known is not None:
                return known[1]
            if depth > DEEPEST_VALUE:
                raise OverBudget(f"nests values deeper than {DEEPEST_VALUE}")
            size = self._size_of_all(value, depth + 1)
            self._sizes[id(value)] = value, size
        elif type(value) is int:
            size = 1 + (value.bit_length() >> 2)
        else:
            size = len(value) if isinstance(value, range) else 1
        if size > LARGEST:
            raise OverBudget(f"works on a value of more than {LARGEST} characters and items")
        return size

    def _size_of_all(self, values: Any, depth: int) -> int:
        size = 1
        for value in values:
            self.tick()
            size += 1 + self.size(value, depth)
            if isinstance(values, dict):
                size += self.size(values[value], depth)
            if size > LARGEST:
                break
        return size

    def most(self, size: int, limit: int = LARGEST) -> None:
        """What an operation is going to make or compare, in characters or items."""
        if size > limit:
            raise OverBudget(f"works on more than {limit} characters and items at once")

    @contextmanager
    def deeper(self) -> Iterator[None]:
        """A call inside those that are running."""
        self._depth += 1
        try:
            if self._depth > DEEPEST_CALL:
                raise OverBudget(f"calls itself more than {DEEPEST_CALL} times")
            yield
        finally:
            self._depth -= 1


_current: ContextVar[Budget] = ContextVar("template budget")


def current() -> Budget:
    """That of the rendering in progress."""
    return _current.get()


@contextmanager
def spending() -> Iterator[Budget]:
    """A fresh budget for a rendering."""
    budget = Budget()
    token = _current.set(budget)
    try:
        yield budget
    finally:
        _current.reset(token)
