"""Bodies of any kind, without a service: read into what the worker takes, or refused with one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit_runtime.errors import InputError
from edgekit_runtime.prompts.bounds import TO_CONTEXT
from edgekit_runtime.server.asked import Asked
from edgekit_runtime.server.bodies import read_object
from edgekit_runtime.server.openai.requests import read_chat, read_completion
from edgekit_runtime.server.wire import pack, unpack

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
@given(body=st.binary(max_size=60) | st.text('{}[]":,0-eE.\\u d8ntf', max_size=60).map(str.encode))
def test_bytes_are_an_object_or_refused(body: bytes) -> None:
    assert one_line(refusal(read_object, body))
