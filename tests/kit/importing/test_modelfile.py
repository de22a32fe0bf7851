"""Modelfiles: what is written is what is read, whatever its case, quotes and line ends; anything else is one error."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgekit.importing.ollama.modelfile import (
    INSTRUCTIONS,
    MESSAGE,
    PARAMETER,
    ROLES,
    Instruction,
    parse,
    read_modelfile,
)
from edgekit_runtime.errors import InputError

SIGNS = st.characters(exclude_characters='"\r\n\x00', exclude_categories=["Cs", "Zl", "Zp", "Cc"])
LINE = st.text(SIGNS, min_size=1).map(str.strip).filter(lambda text: text and not text.isspace())
LINES = st.lists(LINE, min_size=1, max_size=4).map("\n".join)
CASE = st.sampled_from([str.upper, str.lower, str.title])
BLANK = st.sampled_from(["", "# FROM nothing", "   ", '\t# SYSTEM """'])


@st.composite
def instructions(draw: st.DrawFn) -> tuple[str, Instruction]:
    """How one is written, and what it is."""
    name = draw(st.sampled_from(INSTRUCTIONS))
    key = draw(st.sampled_from(ROLES)) if name == MESSAGE else draw(st.sampled_from(["stop", "top_k"]))
    value = draw(LINES)
    quoted = "\n" in value or draw(st.booleans())
    quote = draw(st.sampled_from(['"', '"""'])) if quoted else ""
    words = [draw(CASE)(name), *([key] if name in (MESSAGE, PARAMETER) else []), f"{quote}{value}{quote}"]
    written = draw(st.sampled_from([" ", "\t", "  "])).join(words)
    return written, Instruction(0, name, value, key if name in (MESSAGE, PARAMETER) else "")


@given(st.lists(st.tuples(BLANK, instructions()), max_size=6), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_what_is_written_is_read(given_: list[tuple[str, tuple[str, Instruction]]], end: str, last: bool) -> None:
    parts = [("", ("FROM ./a.gguf", Instruction(0, "FROM", "./a.gguf"))), *given_]
    text = "\n".join(line for blank, (written, _) in parts for line in (blank, written)) + ("\n" if last else "")
    found = parse(text.replace("\n", end), "Modelfile")
    assert [(each.name, each.value.replace(end, "\n"), each.key) for each in found] == [
        (each.name, each.value, each.key) for _, (_, each) in parts
    ]
    lines = text.split("\n")
    assert all(lines[each.line - 1].split()[0].upper() == each.name for each in found)


@given(st.text(st.sampled_from(list('FROMfromSYSTEMPARAMETERstop# \t\r\n"ab./\ufeff')), max_size=80) | st.text())
@example('FROM "')
@example('FROM a\nSYSTEM """"')
@example("FROM a\nPARAMETER stop")
@example("FROM a\nMESSAGE robot x")
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    try:
        found = parse(text, "Modelfile")
    except InputError as error:
        said = str(error)
        assert "\n" not in said
        assert said.startswith("Modelfile")
        return
    assert any(each.name == "FROM" for each in found)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("SYSTEM x", "has no FROM"),
        ("FROM", "Modelfile:1: FROM has no value"),
        ("FROM a\nFORM b", "Modelfile:2: 'FORM' is no instruction: .*did you mean FROM"),
        ('FROM a\n\nSYSTEM """x\ny', "Modelfile:3: its quotes are not closed"),
        ("FROM a\nPARAMETER top_k", "Modelfile:2: PARAMETER needs a name and a value"),
        ("FROM a\nMESSAGE robot hello", "Modelfile:2: 'robot' is no role"),
    ],
)
def test_mistakes_are_named_with_their_line(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse(text, "Modelfile")


def test_quotes_that_are_not_around_a_value_are_part_of_it() -> None:
    found = parse('FROM a\nSYSTEM say "hi"\nSYSTEM """ "a" """\nSYSTEM ""\nTEMPLATE """\n{{ .Prompt }}"""', "Modelfile")
    assert [each.value for each in found[1:]] == ['say "hi"', ' "a" ', "", "\n{{ .Prompt }}"]


def test_files_are_utf_8_or_utf_16(tmp_path: Path) -> None:
    path = tmp_path / "Modelfile"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        path.write_bytes("FROM ü.gguf\n".encode(encoding))
        assert [each.value for each in read_modelfile(path)] == ["ü.gguf"]
    for content, said in ((b"FROM \xff\xfa", "is no text"), (b"x" * (5 << 20), "more than 4 MiB")):
        path.write_bytes(content)
        with pytest.raises(InputError, match=said):
            read_modelfile(path)
    with pytest.raises(InputError, match="can't be read"):
        read_modelfile(tmp_path / "nowhere")
