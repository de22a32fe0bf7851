"""Models and adapters as OpenAI's, vLLM's and llama.cpp's clients ask for them."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.goods import Goods
from tests.service import Service, serving

LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"


@pytest.fixture
def service(goods: Goods) -> Iterator[Service]:
    with serving(goods.bundle, "--context", "200") as started:
        yield started


def load(service: Service, name: object, path: object, **more: object) -> httpx.Response:
    return service.http.post(LOAD, json={"lora_name": name, "lora_path": str(path)} | more)


def message(answer: httpx.Response) -> str:
    said: str = answer.json()["error"]["message"]
    return said


def test_a_model_is_found_by_its_name(service: Service) -> None:
    listed = service.http.get("/v1/models").json()["data"]
    for card in listed:
        assert service.http.get(f"/v1/models/{card['id']}").json() == card
        assert card["object"] == "model"
        assert card["owned_by"] == "edgekit"
        assert card["created"] > 0
        assert card["max_model_len"] == card["max_input_tokens"] == 200
    base, one = listed
    assert (base["parent"], one["parent"]) == (None, "base")
    assert one["root"] == "one-1.0.0"
    for name in ("two", "x" * 300, "%00"):
        answer = service.http.get(f"/v1/models/{name}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


def test_adapters_are_loaded_and_unloaded_in_the_words_of_vllm(service: Service, goods: Goods) -> None:
    plain = {"Accept": "text/plain"}
    body = {"lora_name": "two", "lora_path": str(goods.two)}
    loaded = service.http.post(LOAD, json=body | {"odd": 1}, headers=plain)
    assert (loaded.status_code, loaded.text) == (200, "Success: LoRA adapter 'two' added successfully.")
    assert loaded.headers["x-edgekit-ignored"] == "odd"
    again = load(service, "two", goods.two)
    assert again.status_code == 400
    assert "The lora adapter 'two' has already been loaded" in message(again)
    assert "load_inplace" in message(again)
    replaced = load(service, "two", goods.two, load_inplace=True)
    assert replaced.json()["message"] == "Success: LoRA adapter 'two' added successfully."
    gone = service.http.post(UNLOAD, json={"lora_name": "two"}, headers=plain)
    assert (gone.status_code, gone.text) == (200, "Success: LoRA adapter 'two' removed successfully.")
    unknown = service.http.post(UNLOAD, json={"lora_name": "two"})
    assert (unknown.status_code, message(unknown)) == (404, "The lora adapter 'two' cannot be found.")
    assert load(service, "two", goods.two).status_code == 200


def test_what_is_wrong_with_a_load_is_told(service: Service, goods: Goods) -> None:
    missing = load(service, "two", goods.two.with_name("nowhere.gguf"))
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "adapter_not_found")
    assert message(load(service, "two", "")).startswith("Both 'lora_name' and 'lora_path' must be provided")
    for answer in (
        load(service, "", goods.two),
        load(service, "two", ""),
        load(service, 3, goods.two),
        load(service, "base", goods.two),
        load(service, "two", goods.two, load_inplace="yes"),
        load(service, "two", goods.two, base_model_name="other"),
        service.http.post(UNLOAD, json={"lora_name": ""}),
        service.http.post(UNLOAD, json={}),
        service.http.post(UNLOAD, json={"lora_name": "one", "lora_int_id": 1}),
    ):
        assert answer.status_code == 400, answer.text
    assert [card["id"] for card in service.http.get("/v1/models").json()["data"]] == ["base", "one"]


def test_adapters_have_numbers_as_at_llama_server(service: Service, goods: Goods) -> None:
    assert load(service, "two", goods.two).status_code == 200
    listed = service.http.get("/lora-adapters").json()
    assert [(each["id"], each["path"]) for each in listed] == [(0, "one"), (1, "two")]
    by_number = [service.text(model="base", lora=[{"id": number, "scale": 1.0}]) for number in (0, 1)]
    assert by_number == [service.text(model="base", lora=[{"id": name}]) for name in ("one", "two")]
    assert by_number[0] != by_number[1]
    for number, words in ((2, "no adapter with the number 2"), (-1, "the number -1"), (True, "no id"), (0.0, "no id")):
        answer = service.chat(lora=[{"id": number}])
        assert answer.status_code == 400
        assert words in message(answer)
    refused = service.http.post("/lora-adapters", json=[{"id": 0, "scale": 0.5}])
    assert refused.status_code == 400
    assert '"lora"' in message(refused)


def test_auto_is_no_model_of_a_bundle_without_it_and_no_name_for_an_adapter(service: Service, goods: Goods) -> None:
    found = service.chat(model="auto")
    assert found.status_code == 404
    assert "auto: {fallback: base}" in message(found)
    assert "auto" not in service.http.get("/v1/models").text
    tokens = service.http.post("/tokenize", json={"model": "auto", "messages": [{"role": "user", "content": "a"}]})
    assert (tokens.status_code, "exported without auto" in message(tokens)) == (400, True)
    named = load(service, "auto", goods.two)
    assert (named.status_code, "can't be called auto" in message(named)) == (400, True)
    assert load(service, "auto", goods.bundle).status_code == 400
