"""The routes, on a real service: OpenAI's protocol, errors, adapters at run time."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit_runtime import Runtime
from tests.goods import Goods
from tests.service import Service, serving

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


@pytest.fixture(scope="module")
def service(goods: Goods) -> Iterator[Service]:
    with serving(goods.bundle) as started:
        yield started


def test_an_answer_is_that_of_the_runtime(service: Service, goods: Goods) -> None:
    document = service.chat().json()
    with Runtime(goods.bundle, threads=1, context=128, parallel=4) as runtime:
        expected = runtime.generate("scratch", adapter="one", max_tokens=6)
    assert document["choices"][0]["message"]["content"] == expected.text
    assert document["choices"][0]["finish_reason"] == "length"
    assert document["usage"]["completion_tokens"] == 6
    assert document["model"] == "one"


def test_a_stream_adds_up_to_the_answer(service: Service) -> None:
    whole = service.text()
    options = {"stream": True, "stream_options": {"include_usage": True}}
    lines = service.chat(**options).text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    assert "".join(each["choices"][0]["delta"].get("content", "") for each in chunks[:-1]) == whole
    assert chunks[-2]["choices"][0]["finish_reason"] == "length"
    assert chunks[-1]["usage"]["completion_tokens"] == 6


def test_the_base_and_each_adapter_are_models(service: Service) -> None:
    assert [model["id"] for model in service.http.get("/v1/models").json()["data"]] == ["base", "one"]
    answers = {name: service.chat(model=name).json() for name in ("base", "one")}
    texts = {name: answer["choices"][0]["message"]["content"] for name, answer in answers.items()}
    assert texts["base"] != texts["one"]


def test_an_adapter_comes_and_goes_while_the_service_runs(service: Service, goods: Goods) -> None:
    before = service.text()
    loaded = service.http.post("/v1/load_lora_adapter", json={"lora_name": "two", "lora_path": str(goods.two)})
    assert (loaded.status_code, loaded.json()["id"]) == (200, "two")
    assert service.chat(model="two").status_code == 200
    assert service.http.post("/v1/unload_lora_adapter", json={"lora_name": "two"}).status_code == 200
    gone = service.chat(model="two")
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "model_not_found")
    assert service.text() == before


def test_a_bad_adapter_file_changes_nothing(service: Service, goods: Goods, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(goods.two.read_bytes()[:-64])
    for path, status in ((cut, 404), (goods.other_family, 400), (tmp_path / "nowhere.gguf", 404)):
        body = {"lora_name": "one", "lora_path": str(path), "load_inplace": True}
        assert service.http.post("/v1/load_lora_adapter", json=body).status_code == status, path
    assert service.chat().status_code == 200


def test_a_schema_holds_the_answer(service: Service) -> None:
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "verdict", "schema": schema}}
    answer = service.chat(response_format=wanted, max_tokens=40).json()
    text = answer["choices"][0]["message"]["content"]
    if answer["choices"][0]["finish_reason"] == "stop":
        assert isinstance(json.loads(text)["ok"], bool)
    else:
        assert text.startswith("{")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"messages": "hello"}, "messages has to be a list"),
        ({"messages": []}, "no messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "neither text nor image_url"),
        ({"max_tokens": 0}, "max_tokens has to be a whole number of at least 1"),
        ({"max_tokens": 100_000}, "exceed the context"),
        ({"temperature": "hot"}, "temperature has to be a number"),
        ({"n": 65}, "n has to be a whole number of at least 1 and at most 64"),
        ({"min_p": 2}, "min_p has to be a number of at least 0 and at most 1"),
        ({"repetition_penalty": 0}, "repetition_penalty has to be"),
        ({"repetition_penalty": 1.1, "repeat_penalty": 1.2}, "are the same"),
        ({"presence_penalty": 2.5}, "presence_penalty has to be"),
        ({"logit_bias": {"x": 1}}, "no token id"),
        ({"logit_bias": {"5": 101}}, "at most 100"),
        ({"logit_bias": {"99999999": 1}}, "which the base doesn't know"),
        ({"min_tokens": 7}, "min_tokens is more than the 6"),
        ({"top_logprobs": 2}, "top_logprobs needs logprobs"),
        ({"logprobs": True, "top_logprobs": 99}, "at most 20"),
        ({"tools": [{}]}, "tool 1 has no name"),
        ({"seed": -2}, "seed has to be"),
        ({"lora": [{"id": "one", "scale": 5}]}, "scale of 5"),
        ({"lora": [{"scale": 1}]}, "no id"),
        ({"stop": [1]}, "stop has to be"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"model": None}, "model is missing"),
        ({"temperature": 10**400}, "too large a number"),
    ],
)
def test_a_bad_request_is_told_what_is_wrong(service: Service, change: dict[str, Any], words: str) -> None:
    answer = service.chat(**change)
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": []},
        {"type": "string", "pattern": "^a{1000000000}$"},
        {"type": "array", "items": {"type": "integer"}, "uniqueItems": True},
        {"$ref": "#"},
        False,
    ],
)
def test_a_schema_that_cannot_be_held_leaves_the_engine_alive(service: Service, schema: Any) -> None:
    before = service.worker
    answer = service.chat(response_format={"type": "json_schema", "json_schema": {"schema": schema}})
    assert answer.status_code == 400
    assert "schema" in answer.json()["error"]["message"]
    assert service.worker == before


def test_half_a_character_is_refused_before_the_engine_sees_it(service: Service) -> None:
    body = {"model": "one", "messages": [{"role": "user", "content": "a\ud800b"}]}
    answer = service.http.post(CHAT, content=json.dumps(body))
    assert answer.status_code == 400
    assert "not JSON" in answer.json()["error"]["message"]


def test_a_body_without_end_is_cut_off(service: Service) -> None:
    assert service.http.post(CHAT, content=b" " * 2_000_000).status_code == 413


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)


FIELDS = ("messages", "prompt", "stop", "seed", "max_tokens", "response_format", "stream_options", "n", "top_p", "lora")


@given(
    path=st.sampled_from([CHAT, COMPLETIONS]),
    body=st.dictionaries(st.sampled_from([*FIELDS, "logprobs", "echo"]), JSON),
)
@settings(deadline=None, max_examples=100)
def test_no_body_makes_the_service_fail(service: Service, path: str, body: dict[str, Any]) -> None:
    content = json.dumps({"model": "one", "max_tokens": 1} | body)
    assert service.http.post(path, content=content).status_code in (200, 400)


def test_the_key_is_asked_for(goods: Goods, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("secret\n")
    with serving(goods.bundle, "--api-key-file", str(key)) as service:
        for path in ("/v1/models", "/metrics", "/status"):
            assert service.http.get(path).status_code == 401
            assert service.http.get(path, headers={"Authorization": "Bearer wrong"}).status_code == 401
            assert service.http.get(path, headers={"Authorization": "Bearer secret"}).status_code == 200
        assert service.http.get("/health").status_code == 200
        assert "secret" not in service.http.get("/").text


def test_a_page_of_another_site_is_refused(service: Service) -> None:
    for headers in ({"Origin": "http://elsewhere.example"}, {"Host": "elsewhere.example"}):
        answer = service.http.post(CHAT, content="{}", headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "foreign")


def test_log_probabilities_come_with_the_tokens(service: Service) -> None:
    whole = service.chat(logprobs=True, top_logprobs=2).json()["choices"][0]
    tokens = whole["logprobs"]["content"]
    assert b"".join(bytes(each["bytes"]) for each in tokens).decode(errors="replace") == whole["message"]["content"]
    for each in tokens:
        assert len(each["top_logprobs"]) == 2
        assert each["top_logprobs"][0]["logprob"] == pytest.approx(each["logprob"])  # greedy
    lines = service.chat(logprobs=True, top_logprobs=2, stream=True).text.split("\n\n")
    chunks = [json.loads(line.removeprefix("data: "))["choices"][0] for line in lines[:-2]]
    streamed = [each for chunk in chunks if chunk["logprobs"] for each in chunk["logprobs"]["content"]]
    assert streamed == tokens


def test_a_completion_scores_its_prompt_as_lm_eval_asks(service: Service) -> None:
    prompts = [[5, 6, 7, 8], [9, 10, 11]]
    body = {
        "model": "one",
        "prompt": prompts,
        "max_tokens": 1,
        "logprobs": 1,
        "echo": True,
        "temperature": 0,
        "seed": 1,
    }
    choices = service.http.post(COMPLETIONS, json=body).json()["choices"]
    assert [choice["index"] for choice in choices] == [0, 1]
    for prompt, choice in zip(prompts, choices, strict=True):
        scored = choice["logprobs"]
        assert len(scored["tokens"]) == len(scored["token_logprobs"]) == len(scored["top_logprobs"]) == len(prompt) + 1
        assert scored["token_logprobs"][0] is None
        assert all(logprob < 0 for logprob in scored["token_logprobs"][1:])
        assert all(token in top for token, top in zip(scored["tokens"][1:], scored["top_logprobs"][1:], strict=True))
    alone = service.http.post(COMPLETIONS, json=body | {"prompt": prompts[0]}).json()["choices"][0]
    assert alone["logprobs"] == choices[0]["logprobs"]


def test_a_text_is_continued_as_it_stands(service: Service) -> None:
    body = {"model": "one", "prompt": "scratch", "max_tokens": 5}
    whole = service.http.post(COMPLETIONS, json=body).json()
    assert whole["usage"]["prompt_tokens"] < 4  # no template around it
    lines = service.http.post(COMPLETIONS, json=body | {"stream": True}).text.split("\n\n")
    chunks = [json.loads(line.removeprefix("data: "))["choices"][0]["text"] for line in lines[:-2]]
    assert "".join(chunks) == whole["choices"][0]["text"]
    echoed = service.http.post(COMPLETIONS, json=body | {"echo": True}).json()["choices"][0]["text"]
    assert echoed == "scratch" + whole["choices"][0]["text"]


def test_figures_are_there_for_prometheus(service: Service) -> None:
    service.chat()
    text = service.http.get("/metrics").text
    for name in ("requests_total", "completion_tokens_total", "ttft_seconds_bucket", "decode_tokens_per_second_count"):
        assert f"edgekit_{name}{{" in text
    for name in ("adapter_loads_total", "adapter_evictions_total", "kv_tokens", "worker_rss_mebibytes"):
        service.wait_for(lambda name=name: f"\nedgekit_{name} " in service.http.get("/metrics").text)


@pytest.mark.parametrize(("method", "path", "code"), [("GET", "/v1/nothing", 404), ("GET", CHAT, 405)])
def test_unknown_routes_are_told_as_every_error(service: Service, method: str, path: str, code: int) -> None:
    answer = service.http.request(method, path)
    assert answer.status_code == code
    assert answer.json()["error"]["message"] == f"{method} {path} is not answered here"
    assert code != 405 or "POST" in answer.headers["allow"]


def test_an_answer_may_take_so_long_and_no_longer(goods: Goods) -> None:
    with serving(goods.bundle, "--request-timeout", "0.001") as service:
        late = service.chat()
        assert (late.status_code, late.json()["error"]["code"]) == (504, "timeout")
        service.wait_for(lambda: service.status()["busy"] == 0)


def test_more_than_the_queue_holds_is_turned_away(goods: Goods) -> None:
    with serving(goods.bundle, "--queue", "1", "--parallel", "1") as service, ThreadPoolExecutor(1) as pool:
        worker = service.worker
        os.kill(worker, signal.SIGSTOP)  # so that the first request is not done before the second one comes
        first = pool.submit(service.chat)
        service.wait_for(lambda: service.status()["busy"] == 1)
        refused = service.chat()
        os.kill(worker, signal.SIGCONT)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert first.result().status_code == 200
        service.wait_for(lambda: service.chat().status_code == 200)
