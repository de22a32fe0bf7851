"""Fields of requests: done, refused by name, or named as left out of account; none goes under."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit_runtime import InputError
from edgekit_runtime.server.anthropic.parameters import MESSAGES
from edgekit_runtime.server.anthropic.requests import read_messages
from edgekit_runtime.server.ollama.requests import read_chat as read_ollama_chat
from edgekit_runtime.server.ollama.requests import read_generate
from edgekit_runtime.server.openai.parameters import CHAT, COMPLETION
from edgekit_runtime.server.openai.requests import read_chat, read_completion
from edgekit_runtime.server.parameters import IGNORED, MOST_NAMED, Table, check, header_of
from edgekit_runtime.server.responses_api.parameters import RESPONSE
from edgekit_runtime.server.responses_api.requests import read_response
from tests.goods import Goods
from tests.service import Service, serving


class Noting(dict[str, Any]):
    """A body that knows what was read of it."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.read: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.read.add(key)
        return super().get(key, default)


@pytest.fixture(scope="module")
def service(goods: Goods) -> Iterator[Service]:
    with serving(goods.bundle) as started:
        yield started


@pytest.mark.parametrize(
    ("table", "body", "read"),
    [
        (CHAT, {"model": "one", "messages": [{"role": "user", "content": "q"}]}, read_chat),
        (COMPLETION, {"model": "one", "prompt": "q"}, read_completion),
        (RESPONSE, {"model": "one", "input": "q"}, read_response),
        (MESSAGES, {"model": "one", "max_tokens": 9, "messages": [{"role": "user", "content": "q"}]}, read_messages),
    ],
)
def test_what_the_tables_promise_is_what_is_read(table: Table, body: dict[str, Any], read: Any) -> None:
    noting = Noting(body)
    read(noting)
    done = {name for name, each in table.items() if each.only is None and not each.does.startswith("taken;")}
    assert noting.read <= table.keys()
    assert done <= noting.read


@pytest.mark.parametrize("table", [CHAT, COMPLETION, RESPONSE, MESSAGES])
def test_what_changes_nothing_is_taken_and_everything_else_is_refused_by_name(table: Table) -> None:
    for name, each in table.items():
        assert check({name: None}, table) == ()
        for value in each.only or ():
            assert check({name: value}, table) == ()
        if each.only is not None:
            with pytest.raises(InputError, match=f"^{name} "):
                check({name: {"odd": 1}}, table)


ASKED = [{"role": "user", "content": "q"}]


@pytest.mark.parametrize(
    ("read", "body", "wanted"),
    [
        (read_chat, lambda stop: {"messages": ASKED, "stop": stop}, "text or a list of texts"),
        (read_completion, lambda stop: {"prompt": "q", "stop": stop}, "text or a list of texts"),
        (read_response, lambda stop: {"input": "q", "stop": stop}, "text or a list of texts"),
        (
            read_messages,
            lambda stop: {"max_tokens": 9, "messages": ASKED, "stop_sequences": stop},
            "stop_sequences has to be a list of texts",
        ),
        (read_ollama_chat, lambda stop: {"messages": ASKED, "options": {"stop": stop}}, "text or a list of texts"),
        (read_generate, lambda stop: {"prompt": "q", "options": {"stop": stop}}, "text or a list of texts"),
    ],
)
def test_an_empty_stop_text_is_told_as_one_wherever_it_comes_from(read: Any, body: Any, wanted: str) -> None:
    bare = read is not read_messages
    for stop in ([""], ["a", ""], *([""] if bare else [])):
        with pytest.raises(InputError, match=f"{wanted}, and one of them is empty: leave it out"):
            read({"model": "one"} | body(stop))
    for stop in (0, False, {}, [None], [["a"]], *([] if bare else ["", "a"])):
        with pytest.raises(InputError, match=f"{wanted}: send"):
            read({"model": "one"} | body(stop))
    for stop, found in ((None, []), ([], []), (["a"], ["a"]), *([("a", ["a"])] if bare else [])):
        assert read({"model": "one"} | body(stop)).options[0]["stop"] == found


def test_one_is_not_true() -> None:
    assert check({"cache_prompt": True, "length_penalty": 1.0}, CHAT) == ()
    for body in ({"cache_prompt": 1}, {"length_penalty": True}):
        with pytest.raises(InputError, match="has to be"):
            check(body, CHAT)


@given(names=st.lists(st.text(max_size=80), max_size=40))
def test_names_of_any_kind_are_told_in_a_header_that_any_server_may_send(names: list[str]) -> None:
    found = header_of(check(dict.fromkeys(names), {}))
    assert bool(found) == bool(names)
    for value in found.values():
        assert re.fullmatch(r"[A-Za-z0-9_.$?-]+(, [A-Za-z0-9_.$? -]+)*", value)
        assert len(value) < 1000
        assert value.count(",") <= MOST_NAMED


@pytest.mark.parametrize("stream", [False, True])
def test_a_field_that_nobody_knows_is_answered_without_and_named(service: Service, stream: bool) -> None:
    answer = service.chat(stream=stream, frobnicate=3, stream_options={"odd": 1})
    assert answer.status_code == 200
    assert answer.headers[IGNORED] == "frobnicate, stream_options.odd"
    assert IGNORED not in service.chat(stream=stream).headers


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"audio": {"voice": "alloy"}}, "audio is not available"),
        ({"modalities": ["text", "audio"]}, 'modalities has to be ["text"] here'),
        ({"use_beam_search": True}, "use_beam_search has to be false here"),
        ({"stop_token_ids": [2]}, "stop_token_ids is not available"),
        ({"mirostat": 2}, "mirostat has to be 0 here"),
        ({"stream": "true"}, "stream has to be true or false"),
        ({"stream_options": True}, "stream_options has to be an object"),
        ({"stream_options": {"include_usage": 1}}, "include_usage has to be true or false"),
        ({"stream_options": {"continuous_usage_stats": True}}, "stream_options.continuous_usage_stats has to be false"),
        ({"logprobs": 1}, "logprobs has to be true or false"),
    ],
)
def test_a_field_that_is_not_done_is_refused_by_name(service: Service, change: dict[str, Any], words: str) -> None:
    answer = service.chat(**change)
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]


def test_the_forms_of_others_for_off_and_any_are_understood(service: Service) -> None:
    expected = service.text(top_k=0, max_tokens=200)
    assert service.text(top_k=-1, seed=-1, max_tokens=200) == expected
    whole = service.chat(max_tokens=-1).json()
    assert whole["choices"][0]["finish_reason"] in ("stop", "length")
    assert service.chat(n_predict=3, max_tokens=None).json()["usage"]["completion_tokens"] <= 3
