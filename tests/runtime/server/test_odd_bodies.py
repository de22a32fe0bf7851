"""Bodies of any kind, without a service: read into what the worker takes, or refused with one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit_runtime.errors import InputError
from edgekit_runtime.prompts.bounds import TO_CONTEXT
from edgekit_runtime.server.answering import Writer
from edgekit_runtime.server.anthropic.requests import read_messages
from edgekit_runtime.server.anthropic.writing import MessageWriter
from edgekit_runtime.server.asked import Asked
from edgekit_runtime.server.bodies import read_object
from edgekit_runtime.server.openai.requests import read_chat, read_completion
from edgekit_runtime.server.responses_api.requests import read_response
from edgekit_runtime.server.responses_api.writing import ResponseWriter
from edgekit_runtime.server.wire import pack, unpack
from tests.runtime.server.answers import result

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.sampled_from(["", "\ud800"])
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


def nearly(sound: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """What a place should have, and now and then anything else."""
    return st.one_of(sound, sound, sound, ANYTHING)


def some(**places: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An object with any of these."""
    return st.fixed_dictionaries({}, optional={name: nearly(each) for name, each in places.items()})


WORDS = st.sampled_from(
    ["x", "user", "assistant", "system", "tool", "text", "image_url", "one", "data:image/png;base64,"]
)
PART = some(type=WORDS, text=WORDS, image_url=some(url=WORDS) | WORDS)
MESSAGE = some(
    role=WORDS, content=WORDS | st.lists(nearly(PART), max_size=3), tool_calls=st.lists(ANYTHING, max_size=2)
)
SCHEMA = some(
    type=st.sampled_from(["object", "string", "array", "null"]),
    properties=st.dictionaries(WORDS, ANYTHING, max_size=3),
    required=st.lists(WORDS, max_size=2),
    enum=st.lists(ANYTHING, max_size=3),
    pattern=st.sampled_from(["^a$", "(", "a{9999999999}", "(a?){99}", "\\"]),
    items=ANYTHING,
)
FORMAT = some(
    type=st.sampled_from(["text", "json_object", "json_schema"]), json_schema=some(schema=SCHEMA), schema=SCHEMA
)
STRUCTURED = some(
    json=SCHEMA | WORDS, regex=WORDS, grammar=WORDS, choice=st.lists(WORDS, max_size=2), json_object=st.booleans()
)
COUNT, SHARE = st.integers(-1, 40), st.floats(-1, 3)
COMMON = {
    "model": st.just("one"),
    "temperature": SHARE,
    "top_p": SHARE,
    "top_k": COUNT,
    "seed": st.integers(-1, 2**33),
    "stop": st.lists(WORDS, max_size=3) | WORDS,
    "response_format": FORMAT,
    "structured_outputs": STRUCTURED,
    "guided_json": SCHEMA,
    "guided_choice": st.lists(WORDS, max_size=2),
    "lora": st.lists(nearly(some(id=WORDS, scale=SHARE)), max_size=3),
    "max_tokens": COUNT,
    "stream": st.booleans(),
    "stream_options": some(include_usage=st.booleans()),
    "n": st.integers(0, 5),
    "min_p": SHARE,
    "repetition_penalty": SHARE,
    "repeat_penalty": SHARE,
    "repeat_last_n": COUNT,
    "frequency_penalty": SHARE,
    "presence_penalty": SHARE,
    "logit_bias": st.dictionaries(st.integers(-1, 99).map(str), SHARE, max_size=3),
    "ignore_eos": st.booleans(),
    "min_tokens": COUNT,
    "odd": ANYTHING,
}
CHATS = some(
    **COMMON,
    messages=st.lists(nearly(MESSAGE), max_size=3),
    max_completion_tokens=COUNT,
    logprobs=st.booleans(),
    top_logprobs=COUNT,
)
COMPLETIONS = some(
    **COMMON,
    prompt=WORDS | st.lists(st.integers(0, 9), max_size=3) | st.lists(WORDS, max_size=3),
    logprobs=COUNT,
    echo=st.booleans(),
    best_of=st.just(1),
)
CALL = some(type=st.sampled_from(["function", "custom", "auto", "any", "tool"]), name=WORDS, parameters=SCHEMA)
TOOL = some(type=st.sampled_from(["function", "custom"]), name=WORDS, parameters=SCHEMA, input_schema=SCHEMA)
ITEM_PART = some(type=st.sampled_from(["input_text", "output_text", "input_image", "x"]), text=WORDS, image_url=WORDS)
ITEM = some(
    type=st.sampled_from(["message", "reasoning", "function_call", "function_call_output", "item_reference"]),
    role=WORDS,
    content=WORDS | st.lists(nearly(ITEM_PART), max_size=3),
    **dict.fromkeys(("call_id", "name", "arguments"), WORDS),
    output=WORDS | st.lists(nearly(ITEM_PART), max_size=2),
)
TOOLS = {
    "tools": st.lists(nearly(TOOL), max_size=2),
    "tool_choice": CALL | st.sampled_from(["auto", "none", "required"]),
    "parallel_tool_calls": st.booleans(),
}
OWN = {name: each for name, each in COMMON.items() if name not in ("response_format", "max_tokens", "n")}
RESPONSES = some(
    **OWN,
    **TOOLS,
    input=WORDS | st.lists(nearly(ITEM), max_size=4),
    instructions=WORDS,
    max_output_tokens=COUNT,
    text=some(format=FORMAT, verbosity=WORDS),
    reasoning=some(effort=WORDS, summary=WORDS),
    include=st.lists(st.just("message.output_text.logprobs"), max_size=2),
    top_logprobs=COUNT,
    metadata=some(a=WORDS),
    store=st.booleans(),
)
SOURCE = some(type=st.sampled_from(["base64", "url", "file"]), media_type=WORDS, data=WORDS, url=WORDS)
BLOCK = some(
    type=st.sampled_from(["text", "image", "tool_use", "tool_result", "thinking", "redacted_thinking", "document"]),
    source=SOURCE,
    input=some(x=ANYTHING),
    content=WORDS | st.lists(nearly(some(type=st.just("text"), text=WORDS)), max_size=2),
    is_error=st.booleans(),
    **dict.fromkeys(("text", "thinking", "id", "tool_use_id", "name"), WORDS),
)
TURN = some(role=st.sampled_from(["user", "assistant"]), content=WORDS | st.lists(nearly(BLOCK), max_size=3))
MESSAGES = some(
    **{name: each for name, each in OWN.items() if name != "stop"},
    **TOOLS,
    max_tokens=COUNT,
    messages=st.lists(nearly(TURN), max_size=4),
    system=WORDS | st.lists(nearly(BLOCK), max_size=2),
    stop_sequences=st.lists(WORDS, max_size=3),
    thinking=some(type=st.sampled_from(["enabled", "disabled", "adaptive"]), budget_tokens=COUNT, display=WORDS),
    output_config=some(format=some(type=st.just("json_schema"), schema=SCHEMA), effort=WORDS),
    metadata=some(user_id=WORDS),
)


def check(asked: Asked, *, chat: bool) -> None:
    """What the worker and everything behind it relies on."""
    assert asked.chat == chat
    assert isinstance(asked.model, str)
    assert asked.model
    assert asked.n >= 1
    assert len(asked.options) % asked.n == 0
    for options in asked.options:
        assert unpack(pack(options)) == options
        assert all(type(each) is str and each for each in options["stop"])
        for name, kind in (
            ("temperature", float),
            ("top_p", float),
            ("top_k", int),
            ("seed", int),
            ("max_tokens", int),
        ):
            value = options[name]
            least = TO_CONTEXT if name == "max_tokens" else 0
            assert value is None or (type(value) is kind and value >= least), (name, value)
        forms = {name: options[name] for name in ("schema", "regex", "grammar", "choice") if name in options}
        assert len(forms) <= 1
        assert all(isinstance(each, dict | bool | str | list) for each in forms.values())
        assert all(type(scale) is float and scale >= 0 for scale in (options["lora"] or {}).values())


def refusal(read: Callable[[bytes], object], body: bytes) -> str:
    """What is said against a body; nothing where it is taken."""
    try:
        read(body)
    except InputError as error:
        return str(error)
    return ""


def one_line(said: str) -> bool:
    return "\n" not in said and len(said) < 1000


@settings(deadline=None, max_examples=300)
@given(body=CHATS)
def test_a_chat_is_read_or_refused(body: dict[str, Any]) -> None:
    assert one_line(refusal(lambda text: check(read_chat(read_object(text)), chat=True), json.dumps(body).encode()))


@settings(deadline=None, max_examples=300)
@given(body=COMPLETIONS)
def test_a_completion_is_read_or_refused(body: dict[str, Any]) -> None:
    text = json.dumps(body).encode()
    assert one_line(refusal(lambda text: check(read_completion(read_object(text)), chat=False), text))


@settings(deadline=None, max_examples=300)
@given(body=RESPONSES)
def test_a_request_for_a_response_is_read_or_refused(body: dict[str, Any]) -> None:
    def read(text: bytes) -> None:
        document = read_object(text)
        asked = read_response(document)
        check(asked, chat=True)
        written(ResponseWriter(asked, document))

    assert one_line(refusal(read, json.dumps(body).encode()))


@settings(deadline=None, max_examples=300)
@given(body=MESSAGES)
def test_a_request_for_a_message_is_read_or_refused(body: dict[str, Any]) -> None:
    def read(text: bytes) -> None:
        asked = read_messages(read_object(text))
        check(asked, chat=True)
        written(MessageWriter(asked))

    assert one_line(refusal(read, json.dumps(body).encode()))


def written(writer: Writer) -> None:
    """What was asked for doesn't matter for how it is answered."""
    assert json.loads(json.dumps(writer.whole([result(text="x")], [[]]), allow_nan=False))
    assert "".join(writer.begun({}))


@settings(deadline=None, max_examples=300)
@given(body=st.binary(max_size=60) | st.text('{}[]":,0-eE.\\u d8ntf', max_size=60).map(str.encode))
def test_bytes_are_an_object_or_refused(body: bytes) -> None:
    assert one_line(refusal(read_object, body))
