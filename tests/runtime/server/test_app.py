"""The routes, on the real engine: OpenAI's protocol, errors, adapters at run time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from edgekit_runtime import Runtime
from edgekit_runtime.server import make_app
from tests.runtime.store.conftest import Goods, goods

__all__ = ["goods"]

CHAT = "/v1/chat/completions"


@pytest.fixture
def runtime(goods: Goods) -> Iterator[Runtime]:
    with Runtime(goods.bundle, threads=1) as opened:
        yield opened


@pytest.fixture
def client(runtime: Runtime) -> TestClient:
    return TestClient(make_app(runtime))


def _ask(**more: Any) -> dict[str, Any]:
    return {"model": "one", "messages": [{"role": "user", "content": "scratch"}], "max_tokens": 6} | more


def test_an_answer_is_that_of_the_runtime(client: TestClient, runtime: Runtime) -> None:
    document = client.post(CHAT, json=_ask()).json()
    expected = runtime.generate("scratch", adapter="one", max_tokens=6)
    assert document["choices"][0]["message"]["content"] == expected.text
    assert document["choices"][0]["finish_reason"] == "length"
    assert document["usage"]["completion_tokens"] == 6
    assert document["model"] == "one"


def test_a_stream_adds_up_to_the_answer(client: TestClient) -> None:
    whole = client.post(CHAT, json=_ask()).json()["choices"][0]["message"]["content"]
    options = {"stream": True, "stream_options": {"include_usage": True}}
    lines = client.post(CHAT, json=_ask(**options)).text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    assert "".join(each["choices"][0]["delta"].get("content", "") for each in chunks[:-1]) == whole
    assert chunks[-2]["choices"][0]["finish_reason"] == "length"
    assert chunks[-1]["usage"]["completion_tokens"] == 6


def test_the_base_and_each_adapter_are_models(client: TestClient) -> None:
    assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["base", "one"]
    answers = {name: client.post(CHAT, json=_ask(model=name)).json() for name in ("base", "one")}
    texts = {name: answer["choices"][0]["message"]["content"] for name, answer in answers.items()}
    assert texts["base"] != texts["one"]


def test_an_adapter_comes_and_goes_while_the_service_runs(client: TestClient, goods: Goods) -> None:
    before = client.post(CHAT, json=_ask()).json()["choices"][0]["message"]["content"]
    loaded = client.post("/v1/load_lora_adapter", json={"lora_name": "two", "lora_path": str(goods.two)})
    assert (loaded.status_code, loaded.json()["id"]) == (200, "two")
    assert client.post(CHAT, json=_ask(model="two")).status_code == 200
    assert client.post("/v1/unload_lora_adapter", json={"lora_name": "two"}).status_code == 200
    gone = client.post(CHAT, json=_ask(model="two"))
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "model_not_found")
    assert client.post(CHAT, json=_ask()).json()["choices"][0]["message"]["content"] == before


def test_a_bad_adapter_file_changes_nothing(client: TestClient, goods: Goods, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(goods.two.read_bytes()[:-64])
    for path in (cut, goods.other_family, tmp_path / "nowhere.gguf"):
        answer = client.post("/v1/load_lora_adapter", json={"lora_name": "one", "lora_path": str(path)})
        assert answer.status_code == 400, path
    assert client.post(CHAT, json=_ask()).status_code == 200


def test_a_schema_holds_the_answer(client: TestClient) -> None:
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "verdict", "schema": schema}}
    answer = client.post(CHAT, json=_ask(response_format=wanted, max_tokens=40)).json()
    text = answer["choices"][0]["message"]["content"]
    if answer["choices"][0]["finish_reason"] == "stop":
        assert isinstance(json.loads(text)["ok"], bool)
    else:  # white space without end is JSON too
        assert text.lstrip().startswith(("", "{"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"messages": "hello"}, "messages has to be a list"),
        ({"messages": []}, "no messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "no text"),
        ({"max_tokens": 0}, "max_tokens has to be a whole number of at least 1"),
        ({"max_tokens": 100_000}, "exceed the context"),
        ({"temperature": "hot"}, "temperature has to be a number"),
        ({"n": 2}, "n has to be 1"),
        ({"logprobs": True}, "logprobs is not available"),
        ({"stop": [1]}, "stop has to be"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"model": None}, "model is missing"),
    ],
)
def test_a_bad_request_is_told_what_is_wrong(client: TestClient, change: dict[str, Any], words: str) -> None:
    answer = client.post(CHAT, json=_ask(**change))
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]


def test_a_body_without_end_is_cut_off(client: TestClient) -> None:
    assert client.post(CHAT, content=b" " * 2_000_000).status_code == 400


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)


@given(
    body=st.dictionaries(
        st.sampled_from(["messages", "stop", "seed", "max_tokens", "response_format", "stream_options", "n", "top_p"]),
        JSON,
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
def test_no_body_makes_the_service_fail(client: TestClient, body: dict[str, Any]) -> None:
    content = json.dumps({"model": "one", "max_tokens": 1} | body)
    assert client.post(CHAT, content=content).status_code in (200, 400)


def test_the_key_is_asked_for(runtime: Runtime) -> None:
    client = TestClient(make_app(runtime, api_key="secret"))
    assert client.get("/v1/models").status_code == 401
    assert client.get("/v1/models", headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert client.get("/v1/models", headers={"Authorization": "Bearer secret"}).status_code == 200
    assert client.get("/health").status_code == 200


def test_more_than_the_queue_holds_is_turned_away(runtime: Runtime) -> None:
    answer = TestClient(make_app(runtime, queue=0)).post(CHAT, json=_ask())
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
