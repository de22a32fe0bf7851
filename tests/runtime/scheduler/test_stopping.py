from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit_runtime.errors import UsageError
from edgekit_runtime.scheduler.stopping import StopText


def run(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    stopper = StopText(stops)
    shown = "".join(map(stopper.feed, pieces))
    return shown + stopper.finish(""), stopper.stopped


def expected(text: str, stops: list[str]) -> str:
    """What a reader would say: everything before the first stop text."""
    found = [position for position in map(text.find, stops) if position >= 0]
    return text[: min(found)] if found else text


@given(st.lists(st.text("abc", max_size=4), max_size=8), st.lists(st.text("abc", min_size=1, max_size=3), max_size=2))
def test_text_is_shown_up_to_the_first_stop_wherever_pieces_are_cut(pieces: list[str], stops: list[str]) -> None:
    text = "".join(pieces)
    shown, stopped = run(pieces, stops)
    assert stopped == any(stop in text for stop in stops)
    if not stopped or len(stops) == 1:
        assert shown == expected(text, stops)


def test_a_beginning_of_a_stop_text_is_held_back_and_then_shown() -> None:
    stopper = StopText(["END"])
    assert stopper.feed("so E") == "so "
    assert stopper.feed("Ns") == "ENs"
    assert stopper.finish("E") == "E"


@pytest.mark.parametrize(
    ("pieces", "stops", "found"),
    [(["a.", "b"], ["b", "."], "."), (["ab"], ["b", "ab"], "ab"), (["ab"], ["c"], None), (["a", "b"], ["ab"], "ab")],
)
def test_which_one_has_come_is_told(pieces: list[str], stops: list[str], found: str | None) -> None:
    stopper = StopText(stops)
    for piece in pieces:
        stopper.feed(piece)
    assert stopper.found == found


def test_an_empty_stop_text_is_refused() -> None:
    with pytest.raises(UsageError):
        StopText([""])
