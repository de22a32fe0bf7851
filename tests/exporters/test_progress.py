"""Progress on a terminal and elsewhere."""

from __future__ import annotations

import io
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from huggingface_hub.utils.tqdm import hf_thread_map
from tqdm import tqdm

from edgekit_exporters import progress
from edgekit_exporters.progress import EVERY_SECONDS, clock, stage, staged, tqdm_bar

SIGNS = re.compile(r"\x1b\[(?P<count>[0-9;?]*)(?P<code>[a-zA-Z])|\r|\n|[^\x1b\r\n]+")
HIDDEN, SHOWN = "\x1b[?25l", "\x1b[?25h"  # the cursor


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    @property
    def lines(self) -> list[str]:
        """What a reader sees in the end: lines that were wiped and written again are as they were written last."""
        seen, row = [""], 0
        for sign in SIGNS.finditer(self.getvalue()):
            if sign[0] == "\n":
                row += 1
                seen += [""] * (row == len(seen))
            elif sign["code"] == "A":
                row -= int(sign["count"])
            elif sign["code"] == "K":
                seen[row] = ""
            elif sign["code"] is None and sign[0] != "\r":  # each line is wiped before it is written again
                seen[row] += sign[0]
        return [line.rstrip() for line in seen]


@pytest.fixture
def clock_at(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def a_terminal(patch: pytest.MonkeyPatch) -> Terminal:
    """Put a terminal in the place of stderr; pytest does so too, between fixtures and a test."""
    shown = Terminal()
    patch.setattr(sys, "stderr", shown)
    for name, value in (("TERM", "xterm"), ("COLUMNS", "80"), ("NO_COLOR", "1")):
        patch.setenv(name, value)
    return shown


@contextmanager
def logged_to(terminal: Terminal) -> Iterator[logging.Logger]:
    """A logger that writes to the terminal as the commands' does."""
    handler = logging.StreamHandler(terminal)
    loggers = [logging.getLogger(name) for name in ("edgekit.test", "edgekit_exporters")]
    before = [logger.level for logger in loggers]
    root = logging.getLogger()
    others, root.handlers = root.handlers, [handler]  # those of commands that ran in this process write to closed files
    for logger in loggers:
        logger.setLevel(logging.INFO)
    yield loggers[0]
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)
    root.handlers = others


def test_elsewhere_a_stage_is_one_line(caplog: pytest.LogCaptureFixture, clock_at: list[float]) -> None:
    with caplog.at_level(logging.INFO, progress.__name__):
        assert list(staged("abc", "asking", 3)) == ["a", "b", "c"]
    assert caplog.messages == ["asking"]


def test_and_more_when_it_takes_long(caplog: pytest.LogCaptureFixture, clock_at: list[float]) -> None:
    with caplog.at_level(logging.INFO, progress.__name__), stage("asking", 100) as shown:
        for _ in range(100):
            clock_at[0] += EVERY_SECONDS / 20
            shown.advance()
    left = {20: ", 0:40 left", 40: ", 0:30 left", 60: ", 0:20 left", 80: ", 0:10 left", 100: ""}
    assert caplog.messages == ["asking", *(f"asking: {n} of 100 rows{rest}" for n, rest in left.items())]


def test_figures_are_told_at_the_end(caplog: pytest.LogCaptureFixture, clock_at: list[float]) -> None:
    with caplog.at_level(logging.INFO, progress.__name__), stage("training", 2, "step") as shown:
        shown.show(loss="0.5")
        shown.advance()
    assert caplog.messages == ["training", "training: 1 of 2 steps, loss 0.5"]


def test_what_an_earlier_run_has_done_took_no_time(clock_at: list[float]) -> None:
    with stage("training", 100, "step", done=90) as shown:
        assert shown.left is None
        clock_at[0] += 5
        shown.reach(95)
        assert shown.left == 5
        assert (shown.count, shown.times) == ("training: 95 of 100 steps", "0:05, 0:05 left")


def test_a_terminal_has_one_line_that_moves(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    terminal = a_terminal(monkeypatch)
    with pytest.raises(KeyboardInterrupt), stage("asking", 4) as shown:  # noqa: PT012 - it breaks off in the middle
        shown.reach(3)
        raise KeyboardInterrupt
    line, below = terminal.lines
    assert line.startswith("asking: 3 of 4 rows")
    assert below == ""  # what comes next begins a line
    assert terminal.getvalue().rindex(SHOWN) > terminal.getvalue().rindex(HIDDEN)
    assert sys.stderr is terminal
    assert caplog.messages == []


def test_other_lines_go_above_it_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = a_terminal(monkeypatch)
    long = "a path that is longer than the terminal is wide: " + "x" * 80
    with logged_to(terminal) as log:
        with stage("asking", 4):
            log.info(long)
            print("[bold]a warning[/]", file=sys.stderr)
        log.info("below")
    *above, stage_line, below, _ = terminal.lines
    assert above == [long, "[bold]a warning[/]"]
    assert stage_line.startswith("asking: 0 of 4 rows")
    assert below == "below"


def test_a_bar_of_another_library_is_printed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = a_terminal(monkeypatch)
    with stage("loading"):
        for _ in tqdm(range(50), desc="weights", mininterval=0):
            pass
    bar, stage_line, _ = terminal.lines
    assert bar.startswith("weights: 100%")
    assert "50/50" in bar
    assert stage_line.startswith("loading")


def test_stages_inside_others_leave_their_line_when_they_end(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = a_terminal(monkeypatch)
    with stage("merging"):
        for _ in staged(range(3), "asking", 3):
            pass
    inside, outside, _ = terminal.lines
    assert inside.startswith("asking: 3 of 3 rows")
    assert outside.startswith("merging")


def test_the_hubs_bars_become_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = a_terminal(monkeypatch)
    with stage("taking the base", unit="file") as shown:
        bar = tqdm_bar(shown)
        size = bar(desc="Downloading bytes", total=0, unit="B", unit_scale=True)
        assert hf_thread_map(str, range(5), desc="Fetching 5 files", tqdm_class=bar) == list("01234")
        size.total = 7 * 1024**2
        size.update(7 * 1024**2)
        size.refresh()
    line, _ = terminal.lines
    assert line.startswith("taking the base: 5 of 5 files")
    assert line.endswith("fetched 7 MiB")


def test_a_terminal_that_can_not_move_its_cursor_has_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = a_terminal(monkeypatch)
    monkeypatch.setenv("TERM", "dumb")
    with logged_to(terminal), stage("asking", 4):
        pass
    assert terminal.getvalue() == "asking\n"


def test_nobody_to_show_it_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert list(staged([1], "asking", 1)) == [1]


@pytest.mark.parametrize(("seconds", "shown"), [(0.4, "0:00"), (59.6, "1:00"), (750, "12:30"), (7380, "2:03:00")])
def test_time_is_told_as_a_clock_does(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown
