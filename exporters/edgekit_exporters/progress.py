"""How far long work is, on stderr: one line that moves on a terminal, and a log line now and then elsewhere."""

from __future__ import annotations

import logging
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

log = logging.getLogger(__name__)

Item = TypeVar("Item")

EVERY_SECONDS = 10.0  # between two log lines of one stage
_COUNTED = "{desc}: {n_fmt} of {total_fmt} {unit}s [{elapsed}<{remaining}]{postfix}"
_UNCOUNTED = "{desc} [{elapsed}]"


class Stage:
    """One stage of some work; see :func:`stage`."""

    def __init__(self, what: str, total: int | None, unit: str, done: int) -> None:
        self._what, self._total, self._unit, self._done = what, total, unit, done
        self._figures: dict[str, str] = {}
        self._bar: Any = None
        self._said: tuple[int, dict[str, str]] | None = None  # what the last log line told
        self._next_line = time.monotonic() + EVERY_SECONDS
        if sys.stderr is not None and sys.stderr.isatty():
            form = _UNCOUNTED if total is None else _COUNTED
            columns, lines = shutil.get_terminal_size()  # 80 x 24 where a terminal says none, which would hide the line
            self._bar = tqdm(
                total=total,
                initial=done,
                desc=what,
                unit=unit,
                file=sys.stderr,
                bar_format=form,
                ncols=columns,
                nrows=lines,
            )
        else:
            log.info("%s", what)

    def reach(self, done: int) -> None:
        """So much of the total is done."""
        self._done = done
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
        elif time.monotonic() >= self._next_line:
            self._say()

    def advance(self, count: int = 1) -> None:
        """So much more is done."""
        self.reach(self._done + count)

    def show(self, **figures: str) -> None:
        """Show figures beside the count: the last losses, say."""
        self._figures |= figures
        if self._bar is not None:
            self._bar.set_postfix(self._figures)

    def close(self) -> None:
        """End the line; elsewhere than on a terminal, tell where a stage ended that had more to say than its name."""
        if self._bar is not None:
            self._bar.close()
        elif (self._said or self._figures) and self._said != (self._done, self._figures):
            self._say()

    def _say(self) -> None:
        self._next_line = time.monotonic() + EVERY_SECONDS
        self._said = (self._done, dict(self._figures))
        count = "" if self._total is None else f": {self._done} of {self._total} {self._unit}s"
        log.info("%s%s%s", self._what, count, "".join(f", {name} {value}" for name, value in self._figures.items()))


@contextmanager
def stage(what: str, total: int | None = None, unit: str = "row", *, done: int = 0) -> Iterator[Stage]:
    """Show ``what`` while the block runs.

    Args:
        what: is being done, ``quantising to Q4_0`` say.
        total: how many of ``unit`` there are to do; None shows none.
        unit: its name in the singular.
        done: how many have been done before.
    """
    with ExitStack() as held:
        shown = Stage(what, total, unit, done)
        held.callback(shown.close)
        if shown._bar is not None:
            held.enter_context(logging_redirect_tqdm())  # other lines go above the one that moves
        yield shown


def staged(items: Iterable[Item], what: str, total: int, unit: str = "row") -> Iterator[Item]:
    """The items, counted as a stage while they are gone through."""
    with stage(what, total, unit) as shown:
        for item in items:
            yield item
            shown.advance()
