"""Lines that move at the bottom of a terminal, one a stage.  Whatever else goes to stderr meanwhile is above them."""

from __future__ import annotations

import atexit
import io
import logging
import os
import sys
import threading
from typing import Any, Protocol, TextIO

PER_SECOND = 4  # times that the lines are drawn
MOST_BAR = 20  # columns; a narrow terminal has less for it
DUMB = ("dumb", "unknown")  # terminals that can't move their cursor


class Line(Protocol):
    """What is shown of a stage; see :class:`~edgekit_exporters.progress.Stage`."""

    total: int | None
    done: int

    @property
    def count(self) -> str:
        """The stage and where it is."""

    @property
    def times(self) -> str:
        """How long it has taken, and how long it will."""

    @property
    def figures(self) -> str:
        """What is shown beside the count."""


def show(stage: Line) -> bool:
    """Show a stage until :func:`end`; False where stderr is no terminal."""
    global _screen
    with _lock:
        if _screen is None:
            if sys.stderr is None or not sys.stderr.isatty() or os.environ.get("TERM") in DUMB:
                return False
            _screen = _Screen(sys.stderr)
        _screen.add(stage)
    return True


def end(stage: Line) -> None:
    """Leave a stage's line where it is, and go on below it."""
    global _screen
    with _lock:
        if _screen is not None and _screen.remove(stage):
            _screen = None


class _Screen:
    """What is shown while any stage is: rich's display, and stderr led above it."""

    def __init__(self, terminal: TextIO) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self._terminal = terminal
        console = Console(file=terminal, force_terminal=True, highlight=False)
        self._lines = Progress(
            *_columns(),
            console=console,
            refresh_per_second=PER_SECOND,
            redirect_stdout=False,  # results: they are none of the terminal's business
            redirect_stderr=False,  # rich would print others' bars once more with each of their steps
        )
        self._tasks: dict[int, Any] = {}
        self._above = _Above(console, terminal)
        self._handlers = [
            handler
            for handler in logging.getLogger().handlers
            if isinstance(handler, logging.StreamHandler) and handler.stream is terminal
        ]
        self._lines.start()
        atexit.register(self.stop)  # a cursor that is hidden would stay so
        self._lead(self._above)

    def add(self, stage: Line) -> None:
        self._tasks[id(stage)] = self._lines.add_task("", total=stage.total, completed=stage.done, stage=stage)

    def remove(self, stage: Line) -> bool:
        """Take a stage out; True when it was the last and everything is as before."""
        task = self._tasks.pop(id(stage))
        self._lines.stop_task(task)
        if not self._tasks:
            self.stop()
            return True
        (line,) = (each for each in self._lines.tasks if each.id == task)
        self._lines.remove_task(task)
        self._lines.refresh()  # or what is printed next would bring the old lines back
        self._lines.console.print(self._lines.make_tasks_table([line]))
        return False

    def stop(self) -> None:
        atexit.unregister(self.stop)
        self._lead(self._terminal)
        self._above.finish()
        self._lines.stop()

    def _lead(self, stream: Any) -> None:
        sys.stderr = stream
        for handler in self._handlers:
            handler.setStream(stream)


class _Above(io.TextIOBase):
    """Takes the place of stderr: prints whole lines above those that move.

    A bar of some other library, which begins its line again and again, is printed as it was at its end.
    """

    def __init__(self, console: Any, terminal: TextIO) -> None:
        self._console, self._terminal = console, terminal
        self._begun = ""  # a line whose end hasn't come

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._print(line)
        return len(text)

    def finish(self) -> None:
        """Print what has no end."""
        if self._begun.strip():
            self._print(self._begun)
        self._begun = ""

    def fileno(self) -> int:
        return self._terminal.fileno()

    def _print(self, line: str) -> None:
        from rich.text import Text

        last = line.rstrip("\r").rpartition("\r")[2]
        self._console.print(Text.from_ansi(last), soft_wrap=True)


_screen: _Screen | None = None
_lock = threading.RLock()  # stages may be of several threads


def _columns() -> list[Any]:
    from rich.progress import BarColumn, ProgressColumn, Task
    from rich.progress_bar import ProgressBar
    from rich.table import Column
    from rich.text import Text

    class Said(ProgressColumn):
        def __init__(self, name: str) -> None:
            super().__init__(Column(no_wrap=True))
            self._name = name

        def render(self, task: Task) -> Text:
            return Text(getattr(task.fields["stage"], self._name))

    class Bar(BarColumn):
        def render(self, task: Task) -> Any:
            stage: Line = task.fields["stage"]
            if stage.total is None:
                return Text("")
            return ProgressBar(total=stage.total, completed=stage.done)

    return [Said("count"), Bar(table_column=Column(max_width=MOST_BAR)), Said("times"), Said("figures")]
