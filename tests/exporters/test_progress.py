"""Progress on a terminal and elsewhere."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from edgekit_exporters import progress
from edgekit_exporters.progress import EVERY_SECONDS, stage, staged


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_elsewhere_a_stage_is_one_line(caplog: pytest.LogCaptureFixture, clock: list[float]) -> None:
    with caplog.at_level(logging.INFO, progress.__name__):
        assert list(staged("abc", "asking", 3)) == ["a", "b", "c"]
    assert caplog.messages == ["asking"]


def test_and_more_when_it_takes_long(caplog: pytest.LogCaptureFixture, clock: list[float]) -> None:
    with caplog.at_level(logging.INFO, progress.__name__), stage("asking", 100) as shown:
        for _ in range(100):
            clock[0] += EVERY_SECONDS / 20
            shown.advance()
    assert caplog.messages == ["asking", *(f"asking: {n} of 100 rows" for n in (20, 40, 60, 80, 100))]


def test_figures_are_told_at_the_end(caplog: pytest.LogCaptureFixture, clock: list[float]) -> None:
    with caplog.at_level(logging.INFO, progress.__name__), stage("training", 2, "step") as shown:
        shown.show(loss="0.5")
        shown.advance()
    assert caplog.messages == ["training", "training: 1 of 2 steps, loss 0.5"]


def test_a_terminal_has_one_line_that_moves_and_others_above_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with pytest.raises(KeyboardInterrupt), stage("asking", 4) as shown:  # noqa: PT012 - it breaks off in the middle
        shown.reach(3)
        raise KeyboardInterrupt
    said = terminal.getvalue()
    assert "asking: 3 of 4 rows" in said
    assert said.count("\n") == 1
    assert said.endswith("\n")  # what comes next begins a line
    assert caplog.messages == []


def test_nobody_to_show_it_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert list(staged([1], "asking", 1)) == [1]
