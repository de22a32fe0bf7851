from __future__ import annotations

import html

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.pages.signs import visible
from edgekit.proof.markdown import literal

SIGNS = st.text(st.sampled_from("<>&|`*_[]()!#~\\-+ \nab1.:/'\""), max_size=40)


@given(st.one_of(SIGNS, st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40)))
def test_a_reader_of_markdown_shows_what_was_written(text: str) -> None:
    reader = pytest.importorskip("markdown_it").MarkdownIt("commonmark")
    shown = visible(" ".join(f"x {text} x".split()))
    assert reader.renderInline(literal(f"x {text} x")) == html.escape(shown, quote=True).replace("&#x27;", "'")


def test_a_script_in_an_answer_is_text_and_stays_in_its_cell() -> None:
    assert literal("<script>alert(1)</script> | \n `x`") == "&lt;script&gt;alert(1)&lt;/script&gt; \\| \\`x\\`"
