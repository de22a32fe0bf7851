"""Where an answer is not what was expected: field by field for JSON, word by word for text."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.evaluation.answers import FieldPath, agreement, json_object
from edgekit.pages.signs import visible
from edgekit_runtime.prompts.reasoning import answer_part, split_reasoning

SAME, MORE, LACKS, NOTE = "same", "more", "lacks", "note"
RIGHT, PARTLY, WRONG, MISSING, EXTRA = "right", "partly", "wrong", "missing", "extra"

COMPARED_WORDS = 400  # of what is left when equal ends are cut off: the comparison's time grows with its cube
ALIKE = 0.3  # least share of equal words; two texts with less in common differ as a whole
LONGEST = 20_000  # characters of one text in a page
_WORDS = re.compile(r"\s+|\d+(?:[.,]\d+)*\w*|\w+|[^\w\s]")


@dataclass(frozen=True)
class Piece:
    """A stretch of an answer.

    Attributes:
        kind: SAME; MORE for what was not expected; LACKS where something expected is left out, which ``text`` says in
            words; NOTE for a word of ours.
        text: with every sign visible.
    """

    kind: str
    text: str


@dataclass(frozen=True)
class Field:
    """A field of a JSON answer: its name, how right it is (RIGHT, PARTLY, WRONG, MISSING or EXTRA), and its value."""

    name: str
    state: str
    pieces: Sequence[Piece]


@dataclass(frozen=True)
class Marked:
    """An answer with its differences: ``fields`` where it and what was expected are JSON objects, else ``pieces``.

    ``reasoning`` is what it thought before, which no score counts.
    """

    pieces: Sequence[Piece] = ()
    fields: Sequence[Field] = ()
    reasoning: Sequence[Piece] = ()


def plain(text: str) -> list[Piece]:
    """A text without marks, cut off where no page can show it."""
    return [*_piece(SAME, [text[:LONGEST]]), *_cut_off(text)] if text else [Piece(NOTE, "empty")]


def _cut_off(text: str) -> list[Piece]:
    more = len(text) - LONGEST
    return [Piece(NOTE, f" … {more:,} more characters are in report.json")] if more > 0 else []


def expected(text: str) -> Marked:
    """What was expected, in the form that answers are shown in."""
    return marked(text, text)


def marked(reference: str, answer: str, free: frozenset[FieldPath] = frozenset()) -> Marked:
    """An answer, marked where it is not the expected one.

    Args:
        reference: what was expected.
        answer: what was said.
        free: fields of JSON answers that are scored as text.
    """
    want_text, (thought, got_text) = answer_part(reference), split_reasoning(answer)
    reasoning = plain(thought) if thought else ()
    want, got = json_object(want_text), json_object(got_text)
    if want is not None and got is not None and len(got_text) <= LONGEST:
        try:
            return Marked(fields=_fields(want, got, free), reasoning=reasoning)
        except (RecursionError, ValueError):  # nested deeper than anyone writes: as text then
            pass
    return Marked(pieces=_words(want_text, got_text), reasoning=reasoning)


def _fields(want: dict[str, Any], got: dict[str, Any], free: frozenset[FieldPath]) -> list[Field]:
    """Those that were expected, in their order, then what was not."""
    fields = []
    for key, value in want.items():
        if key not in got:
            fields.append(Field(visible(key), MISSING, [Piece(NOTE, "missing")]))
            continue
        right = agreement(value, got[key], free, (key,))
        state = RIGHT if right == 1 else WRONG if right == 0 else PARTLY
        wanted, said = _value(value), _value(got[key])
        if state != RIGHT and wanted == said:  # "1" is not 1
            wanted, said = "", json.dumps(got[key])
        pieces = plain(said) if state == RIGHT else _words(wanted, said)
        fields.append(Field(visible(key), state, pieces))
    extra = [key for key in got if key not in want]
    return fields + [Field(visible(key), EXTRA, plain(_value(got[key]))) for key in extra]


def _value(value: Any) -> str:
    """A text as it is, anything else as JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=lambda _: "(given twice, with different values)")


def _words(reference: str, answer: str) -> list[Piece]:
    if reference == answer or not answer.strip():
        return plain(answer)
    want, got = _WORDS.findall(reference[:LONGEST]), _WORDS.findall(answer[:LONGEST])
    before = _common(want, got)
    after = _common(want[before:][::-1], got[before:][::-1])
    middle = want[before : len(want) - after], got[before : len(got) - after]
    changes = _changes(*middle, alike=(before + after) / max(len(want), len(got)))
    rest = _piece(SAME, got[len(got) - after :] if after else [])
    return [*_piece(SAME, got[:before]), *changes, *rest, *_cut_off(answer)]


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """How many words at the beginning are equal."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _changes(want: list[str], got: list[str], alike: float) -> list[Piece]:
    if max(len(want), len(got)) > COMPARED_WORDS:
        return _piece(MORE, got)
    matcher = difflib.SequenceMatcher(None, want, got, autojunk=False)
    if not want or not got or (alike < ALIKE and matcher.ratio() < ALIKE):
        return [*_lacking(want if not got else []), *_piece(MORE, got)]
    pieces: list[Piece] = []
    for kind, first, last, start, end in matcher.get_opcodes():
        if kind == "delete":
            pieces += _lacking(want[first:last])
        else:
            pieces += _piece(SAME if kind == "equal" else MORE, got[start:end])
    return pieces


def _piece(kind: str, words: Sequence[str]) -> list[Piece]:
    return [Piece(kind, visible("".join(words)))] if words else []


def _lacking(words: Sequence[str]) -> list[Piece]:
    """White space that is left out is not worth a word."""
    left_out = "".join(words).strip()
    return [Piece(LACKS, f"missing: {visible(left_out[:80])}{'…' if len(left_out) > 80 else ''}")] if left_out else []
