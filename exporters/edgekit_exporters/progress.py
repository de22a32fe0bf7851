"""How far long work is, on stderr: lines that move on a terminal, and a log line now and then elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from edgekit_exporters import moving_lines

log = logging.getLogger(__name__)

Item = TypeVar("Item")

EVERY_SECONDS = 10.0  # between two log lines of one stage


class Stage:
    """One stage of some work; see :func:`stage`.

    Attributes:
        total: how many there are to do; None when that isn't counted.
        done: how many are done.
    """

    def __init__(self, what: str, total: int | None = None, unit: str = "row", done: int = 0) -> None:
        self.total, self.done = total, done
        self._what, self._unit, self._before = what, unit, done
        self._figures: dict[str, str] = {}
        self._begun = time.monotonic()
        self._ended: float | None = None
        self._said: tuple[int, dict[str, str]] | None = None  # what the last log line told
        self._next_line = self._begun + EVERY_SECONDS
        self._moves = moving_lines.show(self)
        if not self._moves:
            log.info("%s", what)

    @property
    def count(self) -> str:
        """The stage and where it is: ``asking: 3 of 48 rows``."""
        return self._what if self.total is None else f"{self._what}: {self.done} of {self.total} {self._unit}s"

    @property
    def times(self) -> str:
        """How long it has taken, and how long it will: ``0:12, 3:05 left``."""
        left = self.left
        taken = clock((self._ended or time.monotonic()) - self._begun)
        return taken if left is None or self._ended is not None else f"{taken}, {clock(left)} left"

    @property
    def left(self) -> float | None:
        """Seconds that the rest will take if it goes on like this; None while that can't be told."""
        here = self.done - self._before  # what an earlier run had done took no time now
        if self.total is None or here <= 0:
            return None
        return (time.monotonic() - self._begun) / here * max(self.total - self.done, 0)

    @property
    def figures(self) -> str:
        """What is shown beside the count: ``loss 0.512``."""
        return ", ".join(f"{name} {value}" for name, value in self._figures.items())

    def reach(self, done: int, total: int | None = None) -> None:
        """So much is done; ``total`` when only now it is known how much there is to do."""
        self.done = done
        self.total = self.total if total is None else total
        if not self._moves and time.monotonic() >= self._next_line:
            self._say()

    def advance(self, count: int = 1) -> None:
        """So much more is done."""
        self.reach(self.done + count)

    def show(self, **figures: str) -> None:
        """Show figures beside the count: the last losses, say."""
        self._figures |= figures

    def close(self) -> None:
        """End the line; elsewhere than on a terminal, tell where a stage ended that had more to say than its name."""
        if self._ended is not None:
            return
        self._ended = time.monotonic()
        if self._moves:
            moving_lines.end(self)
        elif (self._said or self._figures) and self._said != (self.done, self._figures):
            self._say()

    def _say(self) -> None:
        self._next_line = time.monotonic() + EVERY_SECONDS
        self._said = (self.done, dict(self._figures))
        left = None if self._ended is not None else self.left
        rest = (f"{clock(left)} left" if left else "", self.figures)
        log.info("%s", ", ".join(part for part in (self.count, *rest) if part))


@contextmanager
def stage(what: str, total: int | None = None, unit: str = "row", *, done: int = 0) -> Iterator[Stage]:
    """Show ``what`` while the block runs.

    Args:
        what: is being done, ``quantising to Q4_0`` say.
        total: how many of ``unit`` there are to do; None shows none.
        unit: its name in the singular.
        done: how many have been done before.
    """
    shown = Stage(what, total, unit, done)
    try:
        yield shown
    finally:
        shown.close()


def staged(items: Iterable[Item], what: str, total: int, unit: str = "row") -> Iterator[Item]:
    """The items, counted as a stage while they are gone through."""
    with stage(what, total, unit) as shown:
        for item in items:
            yield item
            shown.advance()


def clock(seconds: float) -> str:
    """Seconds as a clock shows them: ``0:07``, ``12:30``, ``2:03:00``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def tqdm_bar(shown: Stage) -> Any:
    """A class for libraries that count with tqdm: what its bars count is shown on one stage.

    Bars that count bytes are a figure of the stage, one that counts things is its count.
    """
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[misc]  # tqdm has no types
        disable: bool

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options | {"gui": True, "disable": False})  # gui: draws nothing itself
            self.display()

        def display(self, *_: Any, **__: Any) -> None:
            if self.unit == "B":
                shown.show(fetched=f"{self.n / 1024**2:.0f} MiB")
            else:
                shown.reach(int(self.n), self.total)

        def close(self) -> None:
            if not self.disable:
                self.disable = True
                self.display()

        def clear(self, *_: Any, **__: Any) -> None:
            pass

    return Bar
