"""How a template writes calls is found out from the template, and what is written so is read back exactly."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit_runtime.prompts import tool_learning
from edgekit_runtime.prompts.template import ChatTemplate, TemplateOverBudget
from edgekit_runtime.prompts.tool_format import DEFAULT_FORMAT, Call, ToolFormat, default_text
from edgekit_runtime.prompts.tool_stream import Argued, Begun, CallReader, Delta, Said
from tests.chat_templates import CALLING, CHATML, IDS_BEFORE_NAMES, SMOLLM3, STRANGE_CALLS

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
MARK = "\N{SNOWMAN}"
TEMPLATES = {name: ChatTemplate(source, TOKENS) for name, source in CALLING.items()}
FORMS = {name: ToolFormat.of(template) for name, template in TEMPLATES.items()}
FAMILIES = [*FORMS, "edgekit"]
FORMS["edgekit"] = DEFAULT_FORMAT
TEXT_KEYS, OTHER_KEYS = ("part", "Größe"), ("size", "more")
TOOL = {
    "type": "function",
    "function": {
        "name": "measure",
        "description": "Measures.",
        "parameters": {
            "type": "object",
            "properties": {
                **{key: {"type": "string"} for key in TEXT_KEYS},
                **{key: {"type": "number"} for key in OTHER_KEYS},
            },
        },
    },
}
TEXTS = st.text(max_size=20) | st.text("<>{}[](),:=\"'\\\n\t escap/parmtol_", max_size=30)
NUMBERS = st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    NUMBERS | st.booleans() | st.none() | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b_c", "Größe"]), inner, max_size=2)
    ),
    max_leaves=6,
)
NO_TEXTS = NUMBERS | st.booleans() | st.none() | st.lists(VALUES, max_size=2)
ARGUMENTS = st.fixed_dictionaries(
    {}, optional={**dict.fromkeys(TEXT_KEYS, TEXTS), **dict.fromkeys(OTHER_KEYS, NO_TEXTS)}
)
CALLS = st.builds(Call, st.sampled_from(["measure", "reject_part", "a.b-c"]), ARGUMENTS)


def written(name: str, calls: list[Call], content: str | None) -> str:
    """What a model has to write for this answer, without the token that ends the turn."""
    if name == "edgekit":
        return f"{content}{DEFAULT_FORMAT.gap}{default_text(calls)}" if content else default_text(calls)
    template = TEMPLATES[name]
    asked = [{"role": "user", "content": "?"}]

    def with_answer(answer: dict[str, Any]) -> str:
        return template.render([*asked, {"role": "assistant", **answer}], tools=[TOOL], add_generation_prompt=False)

    entries = [call.message_form(f"abcdefgh{number}") for number, call in enumerate(calls)]
    plain, called = with_answer({"content": MARK}), with_answer({"content": content, "tool_calls": entries})
    begun = next(at for at, (a, b) in enumerate(zip(plain, called, strict=False)) if a != b)
    tail = plain[plain.rindex(MARK) + len(MARK) :]
    ends = [tail, "<start_function_response>"]
    return next(called[begun:].removesuffix(end) for end in ends if called.endswith(end))


def values(calls: list[Call]) -> list[tuple[str, str]]:
    """With the spelling of numbers, so that 1 is not 1.0 or true."""
    return [(call.name, json.dumps(call.arguments, sort_keys=True)) for call in calls]


def writable(name: str, calls: list[Call]) -> bool:
    """Marks around texts that have no quotes can't stand in them; nor is a control character a JSON template's."""
    marks = FORMS[name].syntax.marks if FORMS[name].syntax is not None else ()
    text = json.dumps([call.arguments for call in calls], ensure_ascii=False)
    inner = [json.dumps(mark.strip(), ensure_ascii=False)[1:-1] for mark in marks]
    return not any(each in text for each in inner)


@pytest.mark.parametrize(
    ("family", "opening", "closing", "parallel"),
    [
        ("qwen2.5", "<tool_call>\n", "\n</tool_call>", True),
        ("qwen3", "<tool_call>\n", "\n</tool_call>", True),
        ("hermes", "<tool_call>\n", "\n</tool_call>", True),
        ("llama3", "", "", False),
        ("mistral", "[TOOL_CALLS] [", "]", True),
        ("ministral", "[TOOL_CALLS]", "", True),
        ("granite", "<|tool_call|>[", "]", True),
        ("command-r", "Action: ```json\n[", "]```", True),
        ("lfm2", "<|tool_call_start|>[", "]<|tool_call_end|>", True),
        ("python", "<|python_start|>", "<|python_end|>", True),
        ("function-gemma", "<start_function_call>call:", "<end_function_call>", True),
        ("qwen3-coder", "<tool_call>\n<function=", "</function>\n</tool_call>", True),
        ("envelopes", '<calls>[{"type": "function", "function": ', "}]</calls>", True),
    ],
)
def test_families_forms_are_found_out(family: str, opening: str, closing: str, parallel: bool) -> None:
    form = FORMS[family]
    assert (form.opening, form.closing, form.parallel, form.own) == (opening, closing, parallel, True)


def test_every_family_has_a_row_above() -> None:
    assert set(CALLING) == set(FAMILIES) - {"edgekit"}


@pytest.mark.parametrize("source", [CHATML, SMOLLM3])
def test_a_template_without_calls_gets_edgekits_form_and_a_reason(source: str) -> None:
    form = ToolFormat.of(ChatTemplate(source, TOKENS))
    assert not form.own
    assert form.why == "the base's chat template renders no calls"
    assert (form.opening, form.closing, form.syntax) == ("<tool_call>\n", "\n</tool_call>", DEFAULT_FORMAT.syntax)


@pytest.mark.parametrize("source", [STRANGE_CALLS, IDS_BEFORE_NAMES])
def test_calls_that_cannot_be_read_back_are_said_to_be_so(source: str) -> None:
    form = ToolFormat.of(ChatTemplate(source, TOKENS))
    assert form.syntax is None
    assert "can't be read back" in form.why
    assert form.parse('I call measure with 1 {"name": "measure"}') == ('I call measure with 1 {"name": "measure"}', [])


def test_a_template_that_takes_long_for_each_conversation_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_learning, "SECONDS", 0.0001)
    with pytest.raises(TemplateOverBudget, match="takes more than"):
        ToolFormat.of(TEMPLATES["qwen2.5"])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_form_survives_json(family: str) -> None:
    assert ToolFormat.from_json(json.loads(json.dumps(FORMS[family].as_json()))) == FORMS[family]


@pytest.mark.parametrize("family", FAMILIES)
def test_rendered_calls_are_read_back_to_the_same_values(family: str) -> None:
    form = FORMS[family]

    @settings(max_examples=80, deadline=None)
    @given(calls=st.lists(CALLS, min_size=1, max_size=3 if form.parallel else 1).filter(lambda c: writable(family, c)))
    def check(calls: list[Call]) -> None:
        content, found = form.parse(written(family, calls, None), [TOOL, _named("reject_part"), _named("a.b-c")])
        assert values(found) == values(calls)
        assert content == ""

    check()


def _named(name: str) -> dict[str, Any]:
    return {**TOOL, "function": {**TOOL["function"], "name": name}}


@pytest.mark.parametrize(
    "family", [each for each in FAMILIES if each not in ("llama3", "mistral", "command-r", "hermes")]
)
def test_a_text_before_calls_is_told_from_them(family: str) -> None:
    calls = [Call("measure", {"part": "B"})]
    content, found = FORMS[family].parse(written(family, calls, "I look."))
    assert (content, values(found)) == ("I look.", values(calls))


@pytest.mark.parametrize("family", FAMILIES)
def test_hostile_texts_are_read_without_a_crash_and_lose_nothing(family: str) -> None:
    form = FORMS[family]
    signs = [*form.literals, *(each.strip() for each in form.literals), "measure", '"', "{", "}", "[", "]", "(", ")"]
    signs += [
        '{"name": "measure", "arguments": {}}',
        "a=1",
        "1e999",
        "NaN",
        "\\ud800",
        "\ud800",
        "<think>",
        "</think>\n",
    ]
    pieces = st.sampled_from(signs) | st.text(max_size=5)

    @settings(max_examples=200, deadline=None)
    @given(text=st.lists(pieces, max_size=12).map("".join))
    def check(text: str) -> None:
        content, calls = form.parse(text)
        if not calls:
            assert content == text
        for call in calls:
            json.dumps(call.arguments, allow_nan=False, ensure_ascii=False).encode()

    check()
    for text in (
        "[" * 100_000,
        '{"a":' * 100_000,
        f"{form.opening}{'[' * 100_000}",
        f"{form.opening}f(a={'[' * 10_000}",
    ):
        assert form.parse(text) == (text, [])


@pytest.mark.parametrize("family", FAMILIES)
def test_pieces_give_what_the_whole_gives(family: str) -> None:
    form = FORMS[family]
    tools = [TOOL, _named("reject_part"), _named("a.b-c")]
    fuzz = st.sampled_from([*form.literals, "x", "\n", " ", "</think>", form.needle or "y"])
    around = st.just("") | st.text("ab <\n", max_size=6) if form.needle else st.just("")

    @settings(max_examples=80, deadline=None)
    @given(data=st.data(), before=around, after=st.lists(fuzz, max_size=3).map("".join) if form.needle else around)
    def check(data: Any, before: str, after: str) -> None:
        many = st.lists(CALLS, min_size=1, max_size=2 if form.parallel else 1).filter(lambda c: writable(family, c))
        text = f"{before}{written(family, data.draw(many), None)}{after}"
        cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
        ids = iter(range(99))
        reader = CallReader(form, tools, new_id=lambda: f"id{next(ids)}")
        deltas = []
        for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
            deltas += reader.feed(text[start:end])
        deltas += reader.finish()
        content, calls = form.parse(text, tools, thinking=False)
        assert values(reader.calls) == values(calls)
        said = "".join(each.text for each in deltas if isinstance(each, Said))
        assert said == content
        begun = [each for each in deltas if isinstance(each, Begun)]
        assert [each.name for each in begun] == [each.name for each in calls]
        for each, call in zip(begun, calls, strict=True):
            argued = "".join(
                piece.text for piece in deltas if isinstance(piece, Argued) and piece.number == each.number
            )
            assert json.loads(argued) == call.arguments

    check()


def by_letters(form: ToolFormat, text: str, *, cut: bool = False) -> tuple[list[Delta], list[Delta]]:
    """What comes with the letters of a text, and what at its end."""
    reader = CallReader(form, [TOOL])
    return [delta for sign in text for delta in reader.feed(sign)], reader.finish(cut=cut)


@pytest.mark.parametrize("family", FAMILIES)
def test_letters_one_by_one_come_out_as_soon_as_they_are_known(family: str) -> None:
    form, sent = FORMS[family], Call("measure", {"part": "B" * 40})
    text = written(family, [sent], None)
    soon, late = by_letters(form, text)
    begun, argued = soon + late
    assert isinstance(begun, Begun)
    assert isinstance(argued, Argued)
    assert json.loads(argued.text) == sent.arguments
    assert bool(soon) == bool(form.needle)  # where nothing announces calls, more text would make it none


@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_that_is_cut_off_shows_nothing_of_half_a_call(family: str) -> None:
    form, said = FORMS[family], "So it is" if FORMS[family].needle else None
    calls = [Call("measure", {"part": "B 7", "size": 17}), Call("measure", {"part": "A", "size": 3})]
    calls = calls if form.parallel else calls[:1]
    text = (f"{said}{form.gap}" if said else "") + written(family, calls, None)
    before = text.index(form.needle) if form.needle else 0
    for cut in range(before, len(text)):
        pieces = CallReader(form, [TOOL])
        soon = [delta for at in range(0, cut, 9) for delta in pieces.feed(text[at : min(at + 9, cut)])]
        reader = CallReader(form, [TOOL])
        whole = reader.feed(text[:cut]) + reader.finish(cut=True)
        for deltas in (soon + pieces.finish(cut=True), whole):
            assert "".join(each.text for each in deltas if isinstance(each, Said)).rstrip() == (said or "")
            begun = [each for each in deltas if isinstance(each, Begun)]
            argued = [json.loads(each.text) for each in deltas if isinstance(each, Argued)]
            assert [(each.name, more) for each, more in zip(begun, argued, strict=True)] == [
                (each.name, each.arguments) for each in form.parse(text[:cut], [TOOL])[1]
            ]


def test_the_beginning_of_an_opening_is_no_text_of_an_answer_that_is_cut_off() -> None:
    for end in ("\n<tool", "<tool_call>", "\n<tool_call>\n", '\n<tool_call>\n{"na', "<"):
        soon, late = by_letters(DEFAULT_FORMAT, f"So{end}", cut=True)
        assert "".join(each.text for each in soon + late if isinstance(each, Said)) == "So"
        soon, late = by_letters(DEFAULT_FORMAT, f"So{end}")
        assert "".join(each.text for each in soon + late if isinstance(each, Said)) == f"So{end}"
    for text in ("So <tool_call> is a tag\n", '{"name": "f"}', '<tool_call>{"other": 1, "na'):
        soon, late = by_letters(DEFAULT_FORMAT, text, cut=True)
        assert "".join(each.text for each in soon + late if isinstance(each, Said)) == text
    object_alone = '{"name": "Bob", "age": 3'
    soon, late = by_letters(FORMS["llama3"], object_alone, cut=True)
    assert "".join(each.text for each in soon + late if isinstance(each, Said)) == object_alone


def test_text_behind_calls_stays_behind_them() -> None:
    one, other = default_text([Call("f", {})]), default_text([Call("g", {})])
    soon, late = by_letters(DEFAULT_FORMAT, f"{one}\n{other} so {one} \n")
    assert [each.name if isinstance(each, Begun) else each.text for each in _merged(soon + late)] == [
        *("f", "{}", "g", "{}", " so ", "f", "{}")
    ]


def _merged(deltas: list[Delta]) -> list[Delta]:
    """Texts that follow each other as one."""
    found: list[Delta] = []
    for each in deltas:
        if found and isinstance(each, Said) and isinstance(found[-1], Said):
            found[-1] = Said(found[-1].text + each.text)
        else:
            found.append(each)
    return found


def test_reasoning_holds_no_calls() -> None:
    call = default_text([Call("measure", {})])
    thought = f"<think>\nperhaps {call}\n</think>\n\n"
    assert DEFAULT_FORMAT.parse(f"{thought}done") == (f"{thought}done", [])
    assert DEFAULT_FORMAT.parse(f"{thought}{call}") == (f"{thought.removesuffix(chr(10))}", [Call("measure", {})])
    assert DEFAULT_FORMAT.parse(f"perhaps {call}", thinking=True) == (f"perhaps {call}", [])


def test_what_only_looks_like_a_call_stays_text() -> None:
    for text in (
        '<tool_call>\n{"name": "f", "arguments": [1]}\n</tool_call>',
        '<tool_call>\n{"name": "f", "arguments": {"a": NaN}}\n</tool_call>',
        '<tool_call>\n{"name": "f", "arguments": {}, "more": 1}\n</tool_call>',
        '<tool_call>\n{"name": "f", "argum',
    ):
        assert DEFAULT_FORMAT.parse(text) == (text, [])
    assert FORMS["llama3"].parse('{"name": "f", "parameters": {}} and more')[1] == []


def test_white_space_in_json_does_not_matter_and_an_end_tag_may_be_missing() -> None:
    expected = ("", [Call("f", {"a": 1})])
    assert DEFAULT_FORMAT.parse('<tool_call>{ "arguments" :{"a":1},\n"name":"f" }</tool_call>') == expected
    assert DEFAULT_FORMAT.parse('<tool_call>\n{"name": "f", "arguments": {"a": 1}}') == expected
    assert DEFAULT_FORMAT.parse(
        '<tool_call>{"name": "f", "arguments": {}}</tool_call> so <tool_call>{"name": "g"}</tool_call>'
    ) == (" so ", [Call("f", {}), Call("g", {})])


@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_that_is_cut_off_holds_whole_calls_alone(family: str) -> None:
    calls = [Call("measure", {"part": "B 7", "size": 17}), Call("measure", {"part": "A", "size": 3})]
    form, text = FORMS[family], written(family, calls if FORMS[family].parallel else calls[:1], None)
    for cut in range(len(text)):
        found = [(call.name, call.arguments) for call in form.parse(text[:cut], [TOOL])[1]]
        assert found == [(call.name, call.arguments) for call in calls[: len(found)]]
