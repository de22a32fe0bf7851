from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.pages.signs import visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31m", "\\x1b[31m"),
        ("a\x00b", "a\\x00b"),
        ("\u202egnp", "\\u202egnp"),
        ("\u2066x\u2069", "\\u2066x\\u2069"),
        ("half \ud800", "half \\ud800"),
        ("\U000e0041", "\\U000e0041"),  # a tag: nobody sees it
        ("one\r\ntwo\tthree", "one\ntwo\tthree"),
        ("one\rtwo", "one\\rtwo"),
        ("می\u200cخواهم 👩\u200d🔧 é\xa0!", "می\u200cخواهم 👩\u200d🔧 é\xa0!"),
    ],
)
def test_signs_without_a_shape_are_written_out(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text(st.characters()))
def test_nothing_that_acts_is_left(text: str) -> None:
    left = {unicodedata.category(sign) for sign in visible(text) if sign not in "\n\t\u200c\u200d"}
    assert not left & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    visible(text).encode()
