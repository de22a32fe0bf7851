"""Several answers to one request, and how their tokens are chosen."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from edgekit_runtime import Runtime
from edgekit_runtime.server.openai.responses import Offsets
from tests.goods import Goods
from tests.service import Service, serving

COMPLETIONS = "/v1/completions"
HOT = {"temperature": 1.2, "top_k": 0, "top_p": 1, "seed": 11}


@pytest.fixture(scope="module")
def service(goods: Goods) -> Iterator[Service]:
    with serving(goods.bundle) as started:
        yield started


def chunks(answer: httpx.Response) -> list[dict[str, Any]]:
    """The documents of a stream."""
    assert answer.status_code == 200, answer.text
    lines = answer.text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


def texts(documents: list[dict[str, Any]]) -> dict[int, str]:
    """What a stream says, by choice."""
    said: dict[int, str] = defaultdict(str)
    for choice in (each for document in documents for each in document["choices"]):
        said[choice["index"]] += choice["text"] if "text" in choice else choice["delta"].get("content", "")
    return dict(said)


def test_several_answers_have_the_seeds_that_follow(service: Service) -> None:
    document = service.chat(**HOT, n=3).json()
    assert [choice["index"] for choice in document["choices"]] == [0, 1, 2]
    said = [choice["message"]["content"] for choice in document["choices"]]
    assert said == [service.text(**HOT | {"seed": 11 + add}) for add in range(3)]
    assert len(set(said)) > 1
    usage = document["usage"]
    assert usage["prompt_tokens"] == service.chat().json()["usage"]["prompt_tokens"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_several_answers_come_as_one_stream(service: Service) -> None:
    whole = service.chat(**HOT, n=3).json()
    documents = chunks(service.chat(**HOT, n=3, stream=True, stream_options={"include_usage": True}))
    assert texts(documents) == {choice["index"]: choice["message"]["content"] for choice in whole["choices"]}
    assert documents[-1]["usage"]["total_tokens"] == whole["usage"]["total_tokens"]
    assert documents[-1]["choices"] == []
    reasons = [each["choices"][0]["finish_reason"] for each in documents[:-1]]
    assert sum(reason is not None for reason in reasons) == 3


def test_several_prompts_come_as_one_stream(service: Service) -> None:
    body = {"model": "one", "prompt": ["scratch", "a dent"], "max_tokens": 5, "n": 2, "best_of": 2} | HOT
    whole = service.http.post(COMPLETIONS, json=body).json()["choices"]
    assert len(whole) == 4
    streamed = texts(chunks(service.http.post(COMPLETIONS, json=body | {"stream": True})))
    assert streamed == {choice["index"]: choice["text"] for choice in whole}


@pytest.mark.parametrize("stream", [False, True])
def test_one_bad_prompt_of_several_is_told_before_anything_is_answered(service: Service, stream: bool) -> None:
    body = {"model": "one", "prompt": ["scratch", "word " * 5000], "max_tokens": 5, "stream": stream}
    answer = service.http.post(COMPLETIONS, json=body)
    assert answer.status_code == 400
    service.wait_for(lambda: service.status()["busy"] == 0)
    best = service.http.post(COMPLETIONS, json=body | {"prompt": "scratch", "best_of": 2})
    assert "best_of has to be n" in best.json()["error"]["message"]


def test_penalties_change_an_answer_and_survive_the_engine(service: Service) -> None:
    options: dict[str, Any] = {"max_tokens": 60, "repetition_penalty": 1.4, "frequency_penalty": 0.5, "min_p": 0.01}
    options |= {"logit_bias": {"300": 3}, "ignore_eos": True} | HOT
    expected = service.text(**options)
    assert expected != service.text(**options | {"repetition_penalty": 1})
    assert expected == service.text(
        **{k: v for k, v in options.items() if k != "repetition_penalty"}, repeat_penalty=1.4
    )
    got: list[str] = []
    worker = service.worker
    asking = threading.Thread(target=lambda: got.append(service.text(**options)))
    asking.start()
    service.wait_for(lambda: service.status()["busy"])
    os.kill(worker, signal.SIGKILL)
    asking.join()
    assert got == [expected]


def parts_of(documents: list[dict[str, Any]], choice: dict[str, Any]) -> list[dict[str, Any]]:
    """Pieces of a choice that have log-probabilities."""
    parts = (part for document in documents for part in document["choices"] if part["index"] == choice["index"])
    return [part for part in parts if part["logprobs"]]


def test_offsets_count_characters_of_the_text() -> None:
    text = "a\N{GRINNING FACE}b"
    data = text.encode()
    tokens = [[*data[:1]], [*data[1:3]], [*data[3:5]], [*data[5:]]]
    offsets = Offsets()
    assert [offsets.of(each) for each in tokens] == [0, 1, 1, 2]
    assert offsets.of([]) == len(text)


def test_an_echo_is_streamed_before_its_completion(service: Service) -> None:
    body = {"model": "one", "prompt": ["scratch", "a dent"], "max_tokens": 4, "echo": True, "logprobs": 1}
    whole = service.http.post(COMPLETIONS, json=body).json()["choices"]
    documents = chunks(service.http.post(COMPLETIONS, json=body | {"stream": True}))
    assert texts(documents) == {choice["index"]: choice["text"] for choice in whole}
    for choice in whole:
        parts = (part for document in documents for part in document["choices"] if part["index"] == choice["index"])
        scored = [token for part in parts if part["logprobs"] for token in part["logprobs"]["tokens"]]
        assert scored == choice["logprobs"]["tokens"]
        offsets = [at for part in parts_of(documents, choice) for at in part["logprobs"]["text_offset"]]
        assert offsets == choice["logprobs"]["text_offset"]
    alone = chunks(service.http.post(COMPLETIONS, json=body | {"max_tokens": 0, "stream": True, "logprobs": None}))
    assert texts(alone) == {0: "scratch", 1: "a dent"}


def test_what_the_context_has_no_room_for_has_a_code_of_its_own(service: Service) -> None:
    for more in ({"max_tokens": 100_000}, {"messages": [{"role": "user", "content": "word " * 20_000}]}):
        answer = service.chat(**more)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")


def test_an_answer_goes_on_from_a_text_that_is_given(service: Service, goods: Goods) -> None:
    messages = [{"role": "user", "content": "scratch"}, {"role": "assistant", "content": '{"part":'}]
    with Runtime(goods.bundle, threads=1, context=128, parallel=4) as runtime:
        expected = runtime.generate(messages=messages, adapter="one", max_tokens=6, continue_final_message=True)
        fresh = runtime.generate(messages=messages, adapter="one", max_tokens=6)
    assert expected.usage.prompt_tokens < fresh.usage.prompt_tokens
    body: dict[str, Any] = {"messages": messages, "add_generation_prompt": False, "continue_final_message": True}
    answer = service.chat(**body).json()
    assert answer["choices"][0]["message"]["content"] == expected.text
    assert answer["usage"]["prompt_tokens"] == expected.usage.prompt_tokens
    assert service.text(**body | {"continue_final_message": None}) is not None
    refused = service.chat(**body | {"add_generation_prompt": True})
    assert refused.status_code == 400
    assert "exclude each other" in refused.json()["error"]["message"]
