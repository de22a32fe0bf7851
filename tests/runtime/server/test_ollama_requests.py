"""Ollama's requests and answers without a service: read into what the worker takes, and said as its clients read it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit_runtime.errors import InputError
from edgekit_runtime.prompts.bounds import TO_CONTEXT
from edgekit_runtime.prompts.chat import IMAGE_PART
from edgekit_runtime.prompts.thinking import EFFORTS
from edgekit_runtime.prompts.tool_format import DEFAULT_FORMAT, default_text
from edgekit_runtime.prompts.tool_syntax import Call
from edgekit_runtime.server.asked import Asked
from edgekit_runtime.server.bodies import LEAST_IMAGE, cut_images, placed, read_object
from edgekit_runtime.server.ollama.calls import with_ids
from edgekit_runtime.server.ollama.dialects import BASE64, CHAT, GENERATE
from edgekit_runtime.server.ollama.errors import ollama_error
from edgekit_runtime.server.ollama.requests import read_chat, read_generate
from edgekit_runtime.server.ollama.tables import CHAT as CHAT_FIELDS
from edgekit_runtime.server.ollama.tables import GENERATE as GENERATE_FIELDS
from edgekit_runtime.server.ollama.tables import OPTIONS
from edgekit_runtime.server.ollama.writing import OllamaWriter
from edgekit_runtime.server.parameters import Table, check
from edgekit_runtime.server.refusals import NoModel, Refused
from edgekit_runtime.server.wire import pack, unpack
from tests.runtime.server.test_limits import ANSWER
from tests.runtime.server.test_odd_bodies import ANYTHING, COUNT, SCHEMA, SHARE, WORDS, nearly, one_line, refusal, some
from tests.runtime.server.test_parameters import Noting

QUESTION: dict[str, Any] = {"model": "one", "messages": [{"role": "user", "content": "q"}]}
PROMPT: dict[str, Any] = {"model": "one", "prompt": "q"}
TIMES = ANSWER["timings"] | {"queue_ms": 2.0, "encode_ms": 0.5}
READERS = pytest.mark.parametrize(("read", "body"), [(read_chat, QUESTION), (read_generate, PROMPT)])
Read = Callable[[dict[str, Any]], Asked]


def options(read: Read, body: dict[str, Any], **more: Any) -> dict[str, Any]:
    (found,) = read(body | more).options
    return found


@READERS
def test_names_may_have_the_tag_that_clients_put_behind_them(read: Read, body: dict[str, Any]) -> None:
    for name in ("one", "one:latest"):
        asked = read(body | {"model": name})
        assert (asked.model, asked.options[0]["adapter"], asked.stream) == ("one", "one", True)
    assert read(body | {"model": "one:7b"}).model == "one:7b"  # which is none of ours
    for name in (None, "", 7, ["one"]):
        with pytest.raises(InputError, match="model is missing"):
            read(body | {"model": name})


@READERS
def test_options_are_those_of_the_runtime(read: Read, body: dict[str, Any]) -> None:
    found = options(
        read,
        body,
        options={
            **{"temperature": 1, "top_k": 40.0, "top_p": 0.9, "min_p": 0.1, "seed": -1, "num_predict": 7},
            **{"stop": ["a"], "repeat_penalty": 1.1, "presence_penalty": 0.5, "frequency_penalty": -1},
            **{"num_ctx": 4096, "num_gpu": 1, "mirostat": 0, "typical_p": 1.0, "odd": 1},
        },
    )
    assert {name: found[name] for name in ("temperature", "top_k", "top_p", "min_p", "seed", "max_tokens")} == {
        **{"temperature": 1.0, "top_k": 40, "top_p": 0.9, "min_p": 0.1, "seed": None, "max_tokens": 7}
    }
    assert (found["stop"], found["repetition_penalty"], found["repeat_last_n"]) == (["a"], 1.1, 64)
    assert (found["presence_penalty"], found["frequency_penalty"]) == (0.5, -1.0)
    assert options(read, body)["max_tokens"] is None
    assert {options(read, body, options={"num_predict": end})["max_tokens"] for end in (-1, -2)} == {TO_CONTEXT}
    assert options(read, body, options={"repeat_last_n": 0})["repeat_last_n"] == 0
    assert read(body | {"options": {"odd": 1}, "new": 2}).ignored == ("new", "options.odd")


@READERS
@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"options": {"mirostat": 2}}, "options.mirostat has to be 0"),
        ({"options": {"num_predict": 0}}, "num_predict has to be"),
        ({"options": {"num_predict": 1.5}}, "num_predict has to be"),
        ({"options": {"temperature": "hot"}}, "temperature has to be"),
        ({"options": {"stop": [""]}}, "stop has to be"),
        ({"options": [1]}, "options has to be an object"),
        ({"format": "yaml"}, "format has to be"),
        ({"format": [1]}, "format has to be"),
        ({"think": "much"}, "think has to be"),
        ({"think": 1}, "think has to be"),
        ({"truncate": True}, "truncate has to be false"),
        ({"top_logprobs": 3}, "top_logprobs needs logprobs"),
    ],
)
def test_what_is_not_done_is_refused_by_name(read: Read, body: dict[str, Any], more: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        read(body | more)


@READERS
def test_a_format_is_a_schema(read: Read, body: dict[str, Any]) -> None:
    assert options(read, body, format="json")["schema"] == {"type": "object"}
    assert options(read, body, format={"type": "string"})["schema"] == {"type": "string"}
    assert "schema" not in options(read, body, format="") | options(read, body, format=None)


@READERS
def test_think_is_a_switch_or_an_effort(read: Read, body: dict[str, Any]) -> None:
    for wanted in (True, False):
        assert options(read, body, think=wanted)["chat_template_kwargs"] == {"enable_thinking": wanted}
    assert [options(read, body, think=each)["reasoning_effort"] for each in EFFORTS] == list(EFFORTS)
    assert options(read, body, think="max")["reasoning_effort"] == "high"
    neither = options(read, body)
    assert (neither["chat_template_kwargs"], neither["reasoning_effort"]) == (None, None)


@pytest.mark.parametrize("name", ["template", "suffix", "context", "width"])
def test_what_generate_has_no_place_for_is_refused_unless_it_is_empty(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} is not available"):
        read_generate(PROMPT | {name: [1] if name == "context" else "x"})
    assert read_generate(PROMPT | {name: [] if name == "context" else ""}).options


def test_a_prompt_is_a_question_behind_a_system_prompt_or_raw() -> None:
    asked = options(read_generate, PROMPT, system="Be brief.")
    system, question = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "q"}
    assert asked["messages"] == [system, question]
    assert options(read_generate, PROMPT, system="")["messages"] == [question]
    raw = options(read_generate, PROMPT, raw=True)
    assert raw["raw"] == "q"
    assert "messages" not in raw
    for more in ({"system": "x"}, {"images": ["AA=="]}, {"think": True}):
        with pytest.raises(InputError, match="raw prompt"):
            read_generate(PROMPT | {"raw": True} | more)


def test_without_messages_or_prompt_the_model_is_loaded() -> None:
    for read, body in (
        (read_chat, {"model": "one"}),
        (read_chat, QUESTION | {"messages": []}),
        (read_generate, body_of()),
    ):
        asked = read(body)
        assert asked.options == []
        said = OllamaWriter(asked, "one:latest").whole([], [])
        assert (said["model"], said["done"], said["done_reason"]) == ("one:latest", True, "load")


def body_of(prompt: str | None = None) -> dict[str, Any]:
    return {"model": "one", "prompt": prompt}


def test_a_last_answer_is_continued() -> None:
    begun = [*QUESTION["messages"], {"role": "assistant", "content": "The"}]
    assert options(read_chat, QUESTION, messages=begun)["continue_final_message"] is True
    assert "continue_final_message" not in options(read_chat, QUESTION)


def test_images_stand_before_the_text_of_their_message() -> None:
    messages = [{"role": "user", "content": "q", "images": ["aa", "bb"]}, {"role": "user", "images": ["cc"]}]
    found = options(read_chat, QUESTION, messages=messages)
    assert found["image"] == ["aa", "bb", "cc"]
    assert found["messages"] == [
        {"role": "user", "content": [IMAGE_PART, IMAGE_PART, {"type": "text", "text": "q"}]},
        {"role": "user", "content": [IMAGE_PART, {"type": "text", "text": ""}]},
    ]
    assert options(read_generate, PROMPT, images=["aa"])["image"] == ["aa"]
    for images in ([1], "aa", {"a": 1}):
        with pytest.raises(InputError, match="images"):
            read_generate(PROMPT | {"images": images})


def test_a_result_gets_the_id_of_its_call() -> None:
    def call(name: str, **more: Any) -> dict[str, Any]:
        return {"function": {"name": name, "arguments": {}}} | more

    conversation = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": None, "tool_calls": [call("f"), call("g"), call("f", id="mine")]},
        *({"role": "tool", "content": name, "name": name} for name in ("g", "f")),
        {"role": "tool", "content": "f", "tool_call_id": "mine"},
        {"role": "tool", "content": "of nothing", "name": "h"},
    ]
    found = with_ids(conversation)
    f, g, mine = (each["id"] for each in found[1]["tool_calls"])
    assert mine == "mine"
    assert len({f, g, mine}) == 3
    assert [each.get("tool_call_id") for each in found[2:]] == [g, f, "mine", None]
    assert found[0] == conversation[0]


@pytest.mark.parametrize(
    ("table", "body", "read"), [(CHAT_FIELDS, QUESTION, read_chat), (GENERATE_FIELDS, PROMPT, read_generate)]
)
def test_what_the_tables_promise_is_what_is_read(table: Table, body: dict[str, Any], read: Read) -> None:
    noting = Noting(body)
    read(noting)
    done = {name for name, each in table.items() if each.only is None and not each.does.startswith("taken;")}
    assert noting.read <= table.keys()
    assert done <= noting.read


@pytest.mark.parametrize("table", [CHAT_FIELDS, GENERATE_FIELDS, OPTIONS])
def test_what_changes_nothing_is_taken_and_everything_else_is_refused_by_name(table: Table) -> None:
    for name, each in table.items():
        assert check({name: None}, table) == ()
        for value in each.only or ():
            assert check({name: value}, table) == ()
        if each.only is not None:
            with pytest.raises(InputError, match=f"^{name} "):
                check({name: "something else"}, table)


SAMPLING = some(
    **dict.fromkeys(("temperature", "top_p", "min_p", "repeat_penalty", "presence_penalty"), SHARE),
    **dict.fromkeys(("top_k", "num_predict", "repeat_last_n", "num_ctx", "mirostat"), COUNT),
    seed=st.integers(-1, 2**33),
    stop=st.lists(WORDS, max_size=3) | WORDS,
    odd=ANYTHING,
)
MESSAGE = some(
    role=WORDS,
    content=WORDS,
    thinking=WORDS,
    images=st.lists(WORDS, max_size=2),
    tool_calls=st.lists(nearly(some(id=WORDS, function=some(name=WORDS, arguments=ANYTHING))), max_size=2),
    tool_name=WORDS,
    tool_call_id=WORDS,
    odd=ANYTHING,
)
SHARED: dict[str, st.SearchStrategy[Any]] = {
    "model": st.sampled_from(["one", "one:latest"]),
    "stream": st.booleans(),
    "format": SCHEMA | st.sampled_from(["json", ""]),
    "options": SAMPLING,
    "keep_alive": COUNT | WORDS,
    "think": st.booleans() | st.sampled_from([*EFFORTS, "max"]),
    "logprobs": st.booleans(),
    "top_logprobs": COUNT,
    "odd": ANYTHING,
}
CHATS = some(**SHARED, messages=st.lists(nearly(MESSAGE), max_size=3), tools=st.lists(ANYTHING, max_size=2))
PROMPTS = some(**SHARED, prompt=WORDS, system=WORDS, raw=st.booleans(), images=st.lists(WORDS, max_size=2))


@settings(deadline=None, max_examples=300)
@given(body=CHATS | PROMPTS)
def test_a_body_is_read_or_refused(body: dict[str, Any]) -> None:
    for dialect in (CHAT, GENERATE):
        text, read = json.dumps(body).encode(), dialect.read
        if refused := refusal(lambda text, read=read: read(read_object(text), ["one"]), text):
            assert one_line(refused)
            continue
        asked, writer = read(read_object(text), ["one"])
        assert asked.model == "one"
        assert len(asked.options) <= 1
        for each in asked.options:
            assert unpack(pack(each)) == each
            assert all(type(stop) is str and stop for stop in each["stop"])
            assert each["max_tokens"] is None or each["max_tokens"] >= TO_CONTEXT
        assert json.dumps(writer.whole([], []))


# Images as they stand in its bodies.
LONG = "+/Ab" * LEAST_IMAGE
IMAGES = st.lists(st.sampled_from([LONG, LONG + "AA==", "short", ""]), max_size=4)


@given(st.lists(IMAGES, max_size=3), st.sampled_from([None, 1]), st.booleans(), st.text())
def test_images_are_cut_out_and_put_back_as_they_were(
    lists: list[list[str]], indent: int | None, slashes: bool, text: str
) -> None:
    text += f'"images": ["{LONG}"]'  # in a text, where its quotes are no quotes
    document = {"messages": [{"role": "user", "images": each, "content": text[:LEAST_IMAGE]} for each in lists]}
    sent = json.dumps(document, indent=indent)
    cut, images = cut_images(bytearray((sent.replace("/", "\\/") if slashes else sent).encode()), BASE64)
    flat = [image for each in lists for image in each]
    assert len(images) == sum(len(image) >= LEAST_IMAGE for image in flat)
    names = [name for message in json.loads(cut)["messages"] for name in message["images"]]
    assert [each if isinstance(each, str) else bytes(each).decode() for each in placed(names, images)] == flat
    assert [each["content"] for each in json.loads(cut)["messages"]] == [text[:LEAST_IMAGE]] * len(lists)


def test_an_image_in_another_place_is_refused() -> None:
    _, images = cut_images(bytearray(json.dumps({"extra": {"images": [LONG]}}).encode()), BASE64)
    with pytest.raises(InputError, match="where none is looked at"):
        placed([], images)


# Answers.
CALLS = [Call("add", {"a": 1, "b": "x"}), Call("add", {"a": 2, "b": "é"})]


def events(text: str, cuts: list[int], calls: bool, reasoning: str) -> list[dict[str, Any]]:
    """What the worker says of an answer that comes in these pieces."""
    reading = {"form": DEFAULT_FORMAT.as_json(), "tools": [], "thinking": False}
    made: list[dict[str, Any]] = [{"op": "accepted"} | ({"calls": reading} if calls else {})]
    edges = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    for begin, end in itertools.pairwise(edges):
        made.append({"op": "text", "text": text[begin:end], "scores": []})
    made[1:1] = [{"op": "text", "text": "", "reasoning": reasoning, "scores": []}] if reasoning else []
    return made


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 400), max_size=12), st.booleans(), st.booleans(), st.sampled_from(["", "hm"]), st.booleans()
)
def test_lines_add_up_to_the_whole_answer(
    cuts: list[int], calls: bool, tools: bool, reasoning: str, chat: bool
) -> None:
    said = "Two sums: "
    text = said + (default_text(CALLS) if calls and tools else "<tool_ca")
    told = [each.message_form("id") for each in CALLS] if calls and tools else []
    answer = {
        "text": said.rstrip() if told else said if tools else text,
        "finish_reason": "tool_calls" if told else "length",
    }
    result = ANSWER | {"timings": TIMES} | answer | ({"tool_calls": told} if told else {})
    result |= {"reasoning": reasoning} if reasoning else {}
    asked = read_chat(QUESTION) if chat else read_generate(PROMPT)
    writer = OllamaWriter(asked, "one:latest")
    accepted, *pieces = events(text, cuts, tools, reasoning)
    lines = [*writer.begun(accepted), *(line for each in pieces for line in writer.piece(0, each))]
    lines += [*writer.done(0, {"op": "done", "value": result}), *writer.ended()]
    assert all(line.endswith("}\n") and line.count("\n") == 1 for line in lines)
    objects = [json.loads(line) for line in lines]
    whole = OllamaWriter(asked, "one:latest").whole([result], [[]])
    assert [each["done"] for each in objects] == [False] * (len(objects) - 1) + [True]

    def parts(name: str) -> list[Any]:
        return [found[name] for each in objects if name in (found := each["message"] if chat else each)]

    last, first = objects[-1], whole["message"] if chat else whole
    assert "".join(parts("content" if chat else "response")).strip() == first["content" if chat else "response"].strip()
    assert "".join(parts("thinking")) == first.get("thinking", "")
    calls_of = [[call for each in parts("tool_calls") for call in each], first.get("tool_calls", [])]
    functions = [[call["function"] for call in found] for found in calls_of]
    assert functions[0] == functions[1]
    assert [each["index"] for each in functions[0]] == list(range(len(told)))
    ends = ("done_reason", "total_duration", "load_duration", "prompt_eval_count", "eval_count", "eval_duration")
    assert {name: last[name] for name in ends} == {name: whole[name] for name in ends}
    assert (whole["done_reason"], whole["total_duration"]) == ("stop" if told else "length", 2_000_000)
    assert (whole["load_duration"], whole["prompt_eval_duration"]) == (2_000_000, 1_500_000)


def test_errors_are_one_text() -> None:
    assert ollama_error(Refused(400, "it is wrong", "kind")) == {"error": "it is wrong"}
    assert ollama_error(Refused(400, "lower max_tokens", "kind")) == {"error": "lower num_predict"}
    assert "not found" in ollama_error(NoModel("x" * 5000))["error"]
    assert len(ollama_error(NoModel("x" * 5000))["error"]) < 1000
    (line,) = OllamaWriter(read_chat(QUESTION), "one").failed(Refused(503, "it is gone", "kind"))
    assert json.loads(line) == {"error": "it is gone"}
