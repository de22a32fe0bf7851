"""Ollama's API on a real service: answers are the runtime's, lists are the bundle's, errors are one text."""

from __future__ import annotations

import io
import json
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from PIL import Image

from edgekit_runtime import Runtime
from edgekit_runtime.formats.images import Picture
from edgekit_runtime.server.bodies import MIB, Room
from edgekit_runtime.server.parameters import IGNORED
from tests.goods import Goods
from tests.runtime.server.test_bodies import _Taking, front
from tests.runtime.server.test_bodies import run as run_scenario
from tests.runtime.server.test_limits import ANSWER
from tests.runtime.server.test_ollama_requests import CHATS, PROMPTS, TIMES
from tests.runtime.server.test_thinking import bundle as reasoning_bundle
from tests.service import Service, serving

CHAT, GENERATE = "/api/chat", "/api/generate"
SHORT = {"num_predict": 6}
reasoning = reasoning_bundle


@pytest.fixture(scope="module")
def service(goods: Goods) -> Iterator[Service]:
    with serving(goods.bundle) as started:
        yield started


def asking(content: str = "scratch", **more: Any) -> dict[str, Any]:
    return {"model": "one", "messages": [{"role": "user", "content": content}], "options": SHORT} | more


def said(service: Service, **more: Any) -> dict[str, Any]:
    answer = service.http.post(CHAT, json=asking(stream=False) | more)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def lines(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


def test_an_answer_is_that_of_the_runtime(service: Service, goods: Goods) -> None:
    with Runtime(goods.bundle, threads=1, context=128, parallel=4) as runtime:
        expected = runtime.generate("scratch", adapter="one", max_tokens=6)
        own = runtime.generate(
            messages=[{"role": "system", "content": "x"}, {"role": "user", "content": "y"}], max_tokens=6
        )
        raw = "".join(runtime.stream(raw="scratch", adapter="base", max_tokens=6))
    document = said(service)
    assert document["message"] == {"role": "assistant", "content": expected.text}
    assert (document["done_reason"], document["eval_count"]) == ("length", 6)
    assert document["prompt_eval_count"] == expected.usage.prompt_tokens
    assert document["total_duration"] >= document["eval_duration"] > 0
    ask = {"model": "one", "stream": False, "options": SHORT}
    assert service.http.post(GENERATE, json=ask | {"prompt": "scratch"}).json()["response"] == expected.text
    assert service.http.post(GENERATE, json=ask | {"prompt": "y", "system": "x"}).json()["response"] == own.text
    plain = ask | {"prompt": "scratch", "raw": True, "model": "base:latest"}
    assert service.http.post(GENERATE, json=plain).json()["response"] == raw


@pytest.mark.parametrize(("path", "field"), [(CHAT, "message"), (GENERATE, "response")])
def test_streams_are_the_default_and_add_up(service: Service, path: str, field: str) -> None:
    body = asking(options=SHORT | {"seed": 3, "temperature": 2.0}, logprobs=True, top_logprobs=2)
    body = body if path == CHAT else {**body, "prompt": "scratch", "messages": None}
    streamed = lines(service.http.post(path, json=body))
    whole = service.http.post(path, json=body | {"stream": False}).json()
    texts = [each[field]["content"] if path == CHAT else each[field] for each in (*streamed, whole)]
    assert "".join(texts[:-1]) == texts[-1]
    assert [each["done"] for each in streamed] == [False] * (len(streamed) - 1) + [True]
    assert [score for each in streamed for score in each.get("logprobs", [])] == whole["logprobs"]
    assert len(whole["logprobs"]) == 6
    assert {len(each["top_logprobs"]) for each in whole["logprobs"]} == {2}
    assert {each["model"] for each in streamed} == {"one"}


def test_a_schema_and_stops_hold(service: Service) -> None:
    schema = {"type": "object", "properties": {"ok": {"enum": [True, False]}}, "required": ["ok"]}
    options = {"num_predict": 60, "seed": 1, "temperature": 1}
    found = [said(service, format=schema, options=options | {"seed": seed}) for seed in range(4)]
    whole = [each["message"]["content"] for each in found if each["done_reason"] == "stop"]
    assert whole
    assert all(isinstance(json.loads(text)["ok"], bool) for text in whole)
    first = said(service)["message"]["content"].split()[0]
    stopped = said(service, options=SHORT | {"stop": [first]})
    assert (first in stopped["message"]["content"], stopped["done_reason"]) == (False, "stop")


def test_lists_are_the_bundle_s(service: Service, goods: Goods) -> None:
    manifest = json.loads((goods.bundle / "manifest.json").read_text())
    (entry,), sizes = manifest["adapters"], {each["path"]: each["size"] for each in manifest["files"]}
    models = service.http.get("/api/tags").json()["models"]
    assert [each["name"] for each in models] == [each["model"] for each in models] == ["base:latest", "one:latest"]
    assert [each["digest"] for each in models] == [manifest["base"]["digest"], entry["digest"]]
    assert models[0]["size"] == sizes[manifest["base"]["file"]]
    assert models[1]["size"] == models[0]["size"] + sizes[entry["file"]]
    assert models[1]["details"]["quantization_level"] == manifest["base"]["quantization"]
    running = service.http.get("/api/ps").json()["models"]
    assert [each["name"] for each in running] == ["base:latest", "one:latest"]
    assert running[0]["context_length"] == service.status()["bundle"]["context"]
    shown = service.http.post("/api/show", json={"name": "one:latest"}).json()
    assert shown["system"] == "You are terse."
    assert shown["capabilities"] == ["completion", "tools"]
    assert shown["model_info"]["general.architecture"] == "llama"
    assert "<|im_start|>" in shown["template"]
    assert 'SYSTEM "You are terse."' in shown["modelfile"]
    assert service.http.post("/api/show", json={"model": "base"}).json()["system"] == ""
    assert service.http.get("/api/version").json()["version"].count(".") == 2
    assert [service.http.head(path).status_code for path in ("/", "/api/tags", "/api/version")] == [200] * 3


def test_adapters_that_come_and_go_are_listed(service: Service, goods: Goods) -> None:
    def names() -> list[str]:
        return [each["name"] for each in service.http.get("/api/tags").json()["models"]]

    loaded = service.http.post("/v1/load_lora_adapter", json={"lora_name": "two", "lora_path": str(goods.two)})
    assert loaded.status_code == 200
    assert names() == ["base:latest", "one:latest", "two:latest"]
    assert said(service, model="two:latest")["model"] == "two:latest"
    assert service.http.post("/v1/unload_lora_adapter", json={"lora_name": "two"}).status_code == 200
    assert names() == ["base:latest", "one:latest"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("POST", CHAT, asking(model="nobody"), 404, "not found"),
        ("POST", CHAT, {"model": "nobody"}, 404, "not found"),
        ("POST", "/api/show", {"model": "nobody"}, 404, "not found"),
        ("POST", CHAT, {"messages": []}, 400, "model is missing"),
        ("POST", CHAT, asking("x" * 9000), 400, "context"),
        ("POST", CHAT, asking(think=True), 400, "no switch for reasoning: leave think out"),
        ("POST", CHAT, asking(messages=[{"role": "odd", "content": "x"}]), 400, "no known role"),
        ("POST", CHAT, asking(messages=[{"role": "user", "content": "x", "images": ["AA=="]}]), 400, "text bundle"),
        ("POST", GENERATE, {"model": "one", "prompt": "x", "suffix": "y"}, 400, "suffix is not available"),
        ("POST", "/api/pull", {"model": "llama3"}, 501, "edgekit-runtime adapters install"),
        ("POST", "/api/push", {"model": "one"}, 501, "edgekit deploy"),
        ("POST", "/api/create", {"model": "x"}, 501, "edgekit import-ollama"),
        ("POST", "/api/blobs/sha256:00", {}, 501, "edgekit import-ollama"),
        ("POST", "/api/copy", {"source": "one"}, 501, "load_lora_adapter"),
        ("DELETE", "/api/delete", {"model": "one"}, 501, "unload_lora_adapter"),
        ("POST", "/api/nothing", {}, 404, "not answered here"),
        ("GET", CHAT, None, 405, "not answered here"),
    ],
)
def test_errors_are_one_text_with_a_status(
    service: Service, method: str, path: str, body: Any, status: int, words: str
) -> None:
    answer = service.http.request(method, path, json=body)
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
    assert words in answer.json()["error"]


def test_a_pull_of_what_is_here_is_done(service: Service) -> None:
    assert lines(service.http.post("/api/pull", json={"model": "one"})) == [{"status": "success"}]
    assert service.http.post("/api/pull", json={"name": "base", "stream": False}).json() == {"status": "success"}


def test_what_nobody_knows_is_named(service: Service) -> None:
    message = {"role": "user", "content": "x", "mood": "good"}
    answer = service.http.post(CHAT, json=asking(messages=[message], extra=1, options=SHORT | {"odd": 1}))
    assert answer.headers[IGNORED] == "extra, messages.mood, options.odd"


def test_reasoning_is_told_apart_and_switched_off(reasoning: Path) -> None:
    options = {"num_predict": 24}
    with serving(reasoning) as service:
        on = said(service, model="base", options=options)["message"]
        assert (on["thinking"] != "", on["content"]) == (True, "")
        off = said(service, model="base", options=options, think=False)["message"]
        assert ("thinking" in off, off["content"] != "") == (False, True)
        streamed = lines(service.http.post(CHAT, json=asking(model="base", options=options, think=True)))
        assert "".join(each["message"].get("thinking", "") for each in streamed) == on["thinking"]
        assert service.http.post("/api/show", json={"model": "base"}).json()["capabilities"][-1] == "thinking"


def test_images_are_decoded_without_the_json_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = Image.effect_noise((700, 600), 100).convert("RGB")
    stream = io.BytesIO()
    noise.save(stream, "PNG")
    image = b64encode(stream.getvalue()).decode()
    read: list[int] = []
    loads = json.loads
    monkeypatch.setattr(json, "loads", lambda text: read.append(len(text)) or loads(text))
    monkeypatch.setitem(ANSWER, "timings", TIMES)

    async def scenario() -> None:
        worker, room = _Taking(), Room(400 * MIB)
        worker.go.set()
        async with front(worker, monkeypatch, room) as client:
            messages = [{"role": "user", "content": "?", "images": [image, image]}, {"role": "user", "images": [image]}]
            chat = {"model": "base", "messages": messages, "stream": False}
            prompt = {"model": "base", "prompt": "?", "images": [image] * 3, "stream": False}
            answers = [await client.post(path, json=body) for path, body in ((CHAT, chat), (GENERATE, prompt))]
            assert [each.status_code for each in answers] == [200, 200], [each.text for each in answers]
            for asked in worker.asked:
                assert [Picture(**each) for each in asked["image"]] == [Picture(700, 600, noise.tobytes())] * 3
            assert max(read) < 4096
            bad = prompt | {"images": [image[:-5]]}
            assert (await client.post(GENERATE, json=bad)).status_code == 400
            assert (
                await client.post(GENERATE, json=prompt | {"images": ["data:image/png;base64," + image]})
            ).status_code == 400
            assert room.held == 0

    run_scenario(scenario)


@settings(deadline=None, max_examples=60)
@given(body=CHATS | PROMPTS)
def test_no_body_is_our_fault(service: Service, body: dict[str, Any]) -> None:
    text = json.dumps(body).encode()
    with ThreadPoolExecutor(2) as both:
        for answer in both.map(lambda path: service.http.post(path, content=text), (CHAT, GENERATE)):
            assert answer.status_code in (200, 400, 404, 422), answer.text


def test_the_key_is_asked_for(goods: Goods, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("secret\n")
    with serving(goods.bundle, "--api-key-file", str(tmp_path / "key")) as service:
        refused = service.http.get("/api/tags")
        assert (refused.status_code, list(refused.json())) == (401, ["error"])
        assert service.http.get("/api/tags", headers={"Authorization": "Bearer secret"}).status_code == 200
