"""Rows as OpenAI, TRL, Alpaca, LLaMA-Factory and ShareGPT write them, and what is said of all others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit.data import Row, load_rows
from edgekit_runtime.errors import InputError
from edgekit_runtime.prompts.chat import check_messages


def load(folder: Path, *rows: Any) -> list[Row]:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return load_rows(path)


def message(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def turn(sender: str, value: Any) -> dict[str, Any]:
    return {"from": sender, "value": value}


Q, A, S = message("user", "q"), message("assistant", "a"), message("system", "s")
CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ({"messages": [Q, A]}, [Q, A]),
        ({"messages": json.dumps([Q, A])}, [Q, A]),
        ({"messages": [message("developer", "s"), Q, A]}, [S, Q, A]),
        ({"messages": [S, Q, A], "system": "s"}, [S, Q, A]),
        ({"messages": [Q, A], "tools": None, "prompt": None}, [Q, A]),
        ({"messages": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, [Q, A]),
        ({"messages": [message("user", [{"type": "text", "text": "q", "image": None}]), A]}, None),
        ({"prompt": "q", "completion": "a"}, [Q, A]),
        ({"prompt": [Q], "completion": [A]}, [Q, A]),
        ({"prompt": [S, Q, A, Q], "completion": [A]}, [S, Q, A, Q, A]),
        ({"prompt": [Q], "completion": "a"}, [Q, A]),
        ({"prompt": "q", "completion": [A], "system": "s"}, [S, Q, A]),
        ({"prompt": "q", "response": "a"}, [Q, A]),
        ({"question": "q", "answer": "a"}, [Q, A]),
        ({"query": "q", "response": "a", "history": [["q", "a"]]}, [Q, A, Q, A]),
        ({"input": "q", "output": "a"}, [Q, A]),
        ({"instruction": "q", "input": None, "output": "a"}, [Q, A]),
        ({"instruction": "q", "input": "", "output": "a", "system": "", "history": []}, [Q, A]),
        ({"instruction": "q", "output": "a", "system": "s", "history": [["q", "a"], ["q", "a"]]}, [S, *[Q, A] * 3]),
        ({"instruction": "q", "input": "i", "output": "a", "text": "Below is an"}, [message("user", "q\n\ni"), A]),
        ({"instruction": "q", "output": "a", "text": "### Q: q\n### A: a"}, [Q, A]),
        ({"instruction": "q", "context": "i", "response": "a"}, [message("user", "q\n\ni"), A]),
        ({"conversations": [turn("human", "q"), turn("gpt", "a")], "system": "s"}, [S, Q, A]),
        ({"conversations": [turn("system", "s"), turn("user", "q"), turn("assistant", "a")]}, [S, Q, A]),
        ({"conversation": [Q, A]}, [Q, A]),
    ],
)
def test_kinds_of_rows(row: dict[str, Any], wanted: list[Any] | None, tmp_path: Path) -> None:
    (found,) = load(tmp_path, row)
    wanted = wanted or [message("user", [{"type": "text", "text": "q"}]), A]
    assert [*found.messages, message("assistant", found.answer)] == wanted
    assert (found.tools, found.reply) == ((), None)


def test_calls_inside_a_conversation_are_kept(tmp_path: Path) -> None:
    calling = message("assistant", None, tool_calls=[CALL | {"id": "1"}])
    result = message("tool", "5", tool_call_id="1", name="f")
    (row,) = load(tmp_path, {"messages": [Q, calling, result, A], "tools": [TOOL]})
    assert row.messages == (Q, calling, result)
    assert (row.answer, row.reply, row.tools) == ("a", None, (TOOL,))
    assert check_messages(row.messages) == list(row.messages)


@pytest.mark.parametrize(
    "last",
    [
        message("assistant", None, tool_calls=[CALL]),
        {"role": "assistant", "tool_calls": [CALL]},
        message("assistant", None, tool_calls=[{"function": {"name": "f", "arguments": '{"x": 1}'}}]),
        message("assistant", None, tool_calls=[{"name": "f", "arguments": {"x": 1}}]),
        message("assistant", None, tool_calls=json.dumps([CALL])),
        message("assistant", None, function_call={"name": "f", "arguments": '{"x": 1}'}),
        turn("function_call", '{"name": "f", "arguments": {"x": 1}}'),
        turn("function_call", {"name": "f", "arguments": '{"x": 1}'}),
    ],
)
def test_calls_of_every_dialect_get_one_form(last: dict[str, Any], tmp_path: Path) -> None:
    (row,) = load(tmp_path, {"messages": [Q, last]})
    assert row.reply == message("assistant", None, tool_calls=[CALL])
    assert json.loads(row.answer) == {"name": "f", "arguments": {"x": 1}}


def test_an_answer_may_be_text_and_calls(tmp_path: Path) -> None:
    (row,) = load(tmp_path, {"messages": [Q, message("assistant", "wait", tool_calls=[CALL, CALL])]})
    assert row.reply == message("assistant", "wait", tool_calls=[CALL, CALL])
    assert row.answer.split("\n")[0] == "wait"
    assert [json.loads(line)["name"] for line in row.answer.split("\n")[1:]] == ["f", "f"]


def test_a_call_without_arguments_has_none(tmp_path: Path) -> None:
    (row,) = load(tmp_path, {"messages": [Q, message("assistant", None, tool_calls=[{"name": "f", "arguments": ""}])]})
    assert row.reply is not None
    assert row.reply["tool_calls"][0]["function"] == {"name": "f", "arguments": {}}


@pytest.mark.parametrize(
    "tools",
    [
        {"tools": [TOOL]},
        {"tools": [TOOL["function"]]},
        {"tools": [{"type": "function", **TOOL["function"]}]},
        {"tools": json.dumps([TOOL["function"]])},
        {"functions": [TOOL["function"]]},
        {"tools": [{"name": "f", "description": "d", "parameters": '{"type": "object"}', "strict": None}]},
    ],
)
def test_tools_of_every_dialect_get_one_form(tools: dict[str, Any], tmp_path: Path) -> None:
    for shape in ({"messages": [Q, A]}, {"prompt": "q", "completion": "a"}, {"conversations": [Q, A]}):
        assert load(tmp_path, shape | tools)[0].tools == (TOOL,)


def test_a_sharegpt_row_with_tools_is_the_same_as_an_openai_one(tmp_path: Path) -> None:
    turns = [turn("human", "q"), turn("function_call", json.dumps({"name": "f", "arguments": {"x": 1}}))]
    sharegpt = {"conversations": [*turns, turn("observation", "5"), turn("gpt", "a")], "tools": json.dumps([TOOL])}
    openai = {"messages": [Q, message("assistant", None, tool_calls=[CALL]), message("tool", "5"), A], "tools": [TOOL]}
    one, two = load(tmp_path, sharegpt, openai)
    assert (one.messages, one.answer, one.tools) == (two.messages, two.answer, two.tools)


@pytest.mark.parametrize("key", ["reasoning_content", "thinking", "reasoning"])
def test_reasoning_stays_in_the_message(key: str, tmp_path: Path) -> None:
    thought = message("assistant", "a", **{key: "hm"})
    (row,) = load(tmp_path, {"messages": [Q, thought, Q, thought]})
    assert row.reply == thought | {"reasoning_content": "hm"}
    assert row.messages[1] == row.reply
    assert row.answer == "a"


def test_no_reasoning_is_no_reply(tmp_path: Path) -> None:
    (row,) = load(tmp_path, {"messages": [Q, message("assistant", "a", thinking="", reasoning_content=None)]})
    assert row.reply is None


def test_places_of_images_may_be_written_into_the_text(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"")
    llava = {"id": "7", "image": "1.png", "conversations": [turn("human", "<image>\nWhat?"), turn("gpt", "a")]}
    factory = {"images": ["1.png"], "messages": [message("user", "<image>What?"), A]}
    openai = {
        "image": "1.png",
        "messages": [message("user", [{"type": "image", "text": None}, {"type": "text", "text": "What?"}]), A],
    }
    rows = load(tmp_path, llava, factory, openai)
    assert [row.images for row in rows] == [(tmp_path / "1.png",)] * 3
    assert [row.messages[0]["content"] for row in rows] == [[{"type": "image"}, {"type": "text", "text": "What?"}]] * 3


CALLING = message("assistant", None, tool_calls=[CALL | {"id": "1"}])


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        # No answer, or not one that the row ends in.
        ({"messages": [Q, A, Q]}, "the last message is not an answer"),
        ({"messages": [Q, CALLING, message("tool", "1")]}, "the last message is not an answer"),
        ({"messages": [A]}, "the last message is not an answer"),
        ({"conversations": [turn("human", "q")]}, "the last message is not an answer"),
        ({"conversations": []}, "there are no messages"),
        ({"messages": [Q, message("assistant", None)]}, "message 2 has no text"),
        ({"messages": [Q, message("assistant", None, tool_calls=[])]}, "message 2 has no text"),
        ({"messages": [message("user", None), A]}, "message 1 has no text"),
        ({"messages": [Q, message("assistant", "", reasoning_content="hm")]}, "the answer is empty"),
        ({"prompt": [Q], "completion": []}, "completion does not begin with"),
        ({"prompt": "q", "completion": [Q, A]}, r"completion does not begin .*columns: \{messages: completion\}"),
        ({"prompt": [], "completion": "a"}, "the last message is not an answer"),
        ({"instruction": "", "input": "i", "output": "a"}, "instruction is empty"),
        # Wrong types.
        ({"messages": "q"}, "messages is text and no JSON"),
        ({"messages": {"role": "user"}}, "messages has to be a list"),
        ({"messages": [Q, "a"]}, "message 2 is no object"),
        ({"messages": [message("user", {"text": "q"}), A]}, "message 1 has no text"),
        ({"messages": [message("user", [{"type": "image_url", "image_url": {"url": "x"}}]), A]}, "under image, beside"),
        ({"messages": [Q, message("assistant", "a", name=3)]}, "message 2: name has to be text"),
        ({"instruction": ["q"], "input": "i", "output": "a"}, "instruction has to be text"),
        ({"question": "q", "answer": 4}, "answer has to be text"),
        ({"prompt": "q", "completion": "a", "system": 3}, "system has to be text"),
        ({"query": "q", "response": "a", "history": [["q"]]}, r"history has to be a list of \[question, answer\]"),
        ({"query": "q", "response": "a", "history": {"q": "a"}}, "history has to be a list"),
        # Tools and calls.
        ({"messages": [Q, A], "tools": {"name": "f"}}, "tools has to be a list"),
        ({"messages": [Q, A], "tools": ["f"]}, "tool 1 is no object"),
        ({"messages": [Q, A], "tools": [TOOL, {"type": "function"}]}, "tool 2 has no name"),
        ({"messages": [Q, A], "tools": [{"type": "web_search"}]}, "tool 1 is of another type than function"),
        ({"messages": [Q, A], "tools": [{"name": "f", "parameters": [1]}]}, "parameters has to be a JSON schema"),
        ({"messages": [Q, A], "tools": [TOOL], "functions": [TOOL]}, "tools and functions would be the same part"),
        ({"messages": [Q, message("assistant", None, tool_calls=["f"])]}, "message 2: a call of a tool is no object"),
        ({"messages": [Q, message("assistant", None, tool_calls=[{}])]}, "message 2: a call of a tool has no name"),
        ({"messages": [Q, message("assistant", None, tool_calls=[{"name": "f", "arguments": "x"}])]}, "and no JSON"),
        ({"messages": [Q, message("assistant", None, tool_calls=[{"name": "f", "arguments": [1]}])]}, "are no object"),
        ({"messages": [Q, message("assistant", None, tool_calls=[{"name": "f", "args": {}}])]}, "has other keys than"),
        ({"messages": [Q, CALLING, message("tool", "1", tool_call_id="2"), A]}, "message 3 answers a call that nobody"),
        ({"messages": [message("user", "q", tool_calls=[CALL]), A]}, "message 1: the keys tool_calls are not known"),
        ({"messages": [Q, turn("function_call", "f(x)")]}, "message 2: the call is text and no JSON"),
        # What would be lost without a word.
        ({"messages": [Q, message("assistant", "a", weight=0)]}, "message 2 has another weight than 1"),
        ({"messages": [Q, message("assistant", "a", tool_cals=[CALL])]}, r"did you mean tool_calls\?"),
        ({"messages": [Q, message("assistant", "a", thinking="x", reasoning="y")]}, "two different texts of reasoning"),
        ({"messages": [S, Q, A], "system": "other"}, "two different system prompts"),
        ({"instruction": "q", "output": "a", "text": "else"}, r"text says something else .*ignore: \[text\]"),
        ({"prompt": "q", "question": "p", "answer": "a"}, "prompt and question would be the same part"),
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, r"columns: \{completion: chosen\} and ignore: \[rejected\]"),
        ({"chosen": [Q, A], "rejected": [Q, A]}, r"columns: \{messages: chosen\}"),
        ({"prompt": "q", "completion": "a", "label": False}, "label tells good answers from bad ones"),
        # The nearest kind.
        ({"mesages": [Q, A]}, "the keys mesages are no known kind of row: did you mean messages?"),
        ({"conversatons": []}, "did you mean conversations?"),
        ({"promt": "q", "completion": "a"}, r"did you mean prompt\?"),
        ({"question": "q"}, r"question needs an answer beside it \(answer\)"),
        ({"output": "a"}, r"output needs a question beside it \(instruction\)"),
        ({"text": "q a"}, "text alone has no question and answer"),
        ({"a": 1, "b": 2}, r"the keys a, b are no known kind of row: use \{\"messages\"\}"),
        ({}, r"the keys \(none\) are no known kind"),
        # What no model can be given.
        (
            {"messages": [Q, message("assistant", None, tool_calls=[{"name": "f", "arguments": '{"x": NaN}'}])]},
            "nan is",
        ),
        ({"prompt": "q", "completion": "a", "tools": [{"name": "f", "x": float("inf")}]}, "inf is no number"),
        ({"prompt": "q", "completion": "a", "system": "\ud800"}, "half a character"),
        ({"prompt": "q", "completion": "a", "tools": [{"name": "f", "\udfff": 1}]}, "half a character"),
        ({"prompt": "q", "completion": "a", "image": "\ud800.png"}, r"there is no image .*\\ud800"),
        ({"prompt": "q", "completion": "a", "image": "a\0.png"}, "there is no image"),
        ({"prompt": "q", "completion": "a", "image": {"bytes": "x"}}, "the image is inside the data file"),
    ],
)
def test_what_is_wrong_with_a_row_is_told_in_one_line(row: dict[str, Any], problem: str, tmp_path: Path) -> None:
    good = {"prompt": "q", "completion": "a"}
    with pytest.raises(InputError, match=rf"rows\.jsonl:2: .*{problem}|rows\.jsonl:2: {problem}") as caught:
        load(tmp_path, good, row)
    told = str(caught.value)
    assert "\n" not in told
    assert told.encode()


def test_a_value_without_end_is_refused(tmp_path: Path) -> None:
    nested: Any = {}
    for _ in range(200):
        nested = {"properties": nested}
    with pytest.raises(InputError, match="rows.jsonl:1: a value is nested more than"):
        load(tmp_path, {"prompt": "q", "completion": "a", "tools": [{"name": "f", "parameters": nested}]})


ROWS: list[dict[str, Any]] = [
    {"messages": [S, Q, CALLING, message("tool", "1", tool_call_id="1"), message("assistant", "a", thinking="t")]},
    {"messages": [message("user", [{"type": "text", "text": "q"}]), A], "tools": [TOOL], "system": "s"},
    {"prompt": [Q], "completion": [A], "tools": json.dumps([TOOL])},
    {"instruction": "q", "input": "i", "output": "a", "text": "Below is", "system": "s", "history": [["q", "a"]]},
    {
        "conversations": [
            turn("human", "q"),
            turn("function_call", '{"name": "f"}'),
            turn("tool", "1"),
            turn("gpt", "a"),
        ]
    },
    {"question": "q", "answer": "a", "image": "x.png", "id": 1},
]
KEYS = [
    "messages",
    "role",
    "content",
    "tool_calls",
    "prompt",
    "completion",
    "from",
    "value",
    "tools",
    "image",
    "system",
]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=5)
    | st.sampled_from(KEYS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), inner),
    max_leaves=8,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, each in inside for place in places(each, (*path, key)))]


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(value[path[0]], path[1:], new)
    return copy


def outcome(folder: Path, row: Any) -> tuple[Row | None, str]:
    (folder / "x.png").write_bytes(b"")
    try:
        return load(folder, row)[0], ""
    except InputError as error:
        return None, str(error)


@pytest.mark.parametrize("row", ROWS)
def test_the_rows_to_begin_with_are_right(row: Any, tmp_path: Path) -> None:
    assert outcome(tmp_path, row)[1] == ""


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_in_any_place_is_a_row_or_bad_input(data: st.DataObject, tmp_path: Path) -> None:
    row = data.draw(st.sampled_from(ROWS))
    path = data.draw(st.sampled_from(places(row)))
    if data.draw(st.booleans()):
        row = changed(row, path, data.draw(JSON))
    else:  # or one more key where there are some
        path = data.draw(st.sampled_from(places(row)))
        inner: Any = row
        for key in path:
            inner = inner[key]
        if isinstance(inner, dict):
            row = changed(row, path, inner | {data.draw(st.sampled_from(KEYS) | st.text(max_size=4)): data.draw(JSON)})
    found, told = outcome(tmp_path, row)
    if found is None:
        assert "rows.jsonl" in told
        assert "\n" not in told
        assert told.encode()
        return
    assert found.answer.strip()
    assert found.messages
    assert check_messages(found.messages, len(found.images))
    json.dumps([found.messages, found.tools, found.reply], allow_nan=False).encode()
    assert all(
        call["function"]["arguments"] is not None for each in found.messages for call in each.get("tool_calls", ())
    )
