from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from edgekit.pages.signs import visible
from edgekit.proof.marks import LACKS, LONGEST, MORE, NOTE, SAME, Marked, Piece, marked

WORDS = st.lists(st.sampled_from(["the", "bracket", "0.31", "0.30", "mm", ".", ","]), max_size=12).map(" ".join)


def _states(said: Marked) -> dict[str, str]:
    return {field.name: field.state for field in said.fields}


@given(WORDS, WORDS)
def test_what_is_shown_is_the_answer_and_what_is_unmarked_was_expected(reference: str, answer: str) -> None:
    pieces = marked(reference, answer).pieces
    if answer.strip():
        assert "".join(piece.text for piece in pieces if piece.kind in (SAME, MORE)) == visible(answer)
    assert (reference == answer) <= all(piece.kind in (SAME, NOTE) for piece in pieces)
    if all(piece.kind == SAME for piece in pieces):
        assert reference.split() == answer.split()


def test_the_right_answer_has_no_mark_and_a_wrong_word_has_one() -> None:
    want = "dent of 0.31 mm on the edge: scrap"
    assert marked(want, want).pieces == [Piece(SAME, want)]
    assert marked(want, want.replace("0.31", "0.30")).pieces == [
        Piece(SAME, "dent of "),
        Piece(MORE, "0.30"),
        Piece(SAME, " mm on the edge: scrap"),
    ]


def test_what_is_left_out_is_said() -> None:
    pieces = marked("in the rack by the door", "in the rack").pieces
    assert pieces == [Piece(SAME, "in the rack"), Piece(LACKS, "missing: by the door")]


def test_two_texts_with_nothing_in_common_differ_as_a_whole() -> None:
    said = "As a language model, I would accept it."
    assert marked('{"verdict": "scrap"}', said).pieces == [Piece(MORE, said)]


def test_an_empty_answer_is_called_empty() -> None:
    assert marked("verdict 1", "").pieces == [Piece(NOTE, "empty")]


def test_fields_of_json_are_compared_as_they_are_scored() -> None:
    want = {"part": "gear", "size": 1, "report": "a dent of two mm", "verdict": "scrap"}
    got = {"verdict": "scrap", "size": 1.0, "part": "shaft", "colour": "grey", "report": "a dent of one mm"}
    said = marked(json.dumps(want), json.dumps(got), frozenset({("report",)}))
    assert _states(said) == {
        "part": "wrong",
        "size": "right",
        "report": "partly",
        "verdict": "right",
        "colour": "extra",
    }
    assert Piece(MORE, "one") in next(field for field in said.fields if field.name == "report").pieces
    assert _states(marked('{"a": 1, "b": 2}', '{"a": 1}')) == {"a": "right", "b": "missing"}


def test_a_number_as_text_is_marked_though_it_reads_alike() -> None:
    (field,) = marked('{"size": 1}', '{"size": "1"}').fields
    assert (field.state, field.pieces) == ("wrong", [Piece(MORE, '"1"')])


def test_reasoning_is_shown_apart_and_not_compared() -> None:
    said = marked("verdict 1", "<think>could be 2</think>verdict 1")
    assert said.reasoning == [Piece(SAME, "could be 2")]
    assert said.pieces == [Piece(SAME, "verdict 1")]
    assert marked("verdict 1", "<think>without end").pieces == [Piece(NOTE, "empty")]


def test_an_answer_without_end_is_cut_off_and_its_beginning_is_compared() -> None:
    pieces = marked("verdict 1", "verdict 1" + " and so on" * 10_000).pieces
    assert [piece.kind for piece in pieces] == [SAME, MORE, NOTE]
    assert sum(len(piece.text) for piece in pieces[:2]) == LONGEST
    assert "80,009 more characters are in report.json" in pieces[2].text


def test_answers_nested_without_end_are_text() -> None:
    deep = '{"a":' * 50_000
    assert marked('{"a": 1}', deep).fields == ()
    assert marked(deep, '{"a": 1}').pieces
