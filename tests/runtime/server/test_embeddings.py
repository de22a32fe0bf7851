"""Vectors of texts over HTTP, in OpenAI's form."""

from __future__ import annotations

import base64
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from edgekit_runtime import Runtime
from tests.goods import Goods
from tests.service import Service, serving

TEXTS = ["a scratch", "the paint has run, and there is a dent"]


@pytest.fixture(scope="module")
def service(goods: Goods) -> Iterator[Service]:
    with serving(goods.bundle, "--parallel", "2", "--context", "128") as started:
        yield started


def ask(service: Service, **body: Any) -> httpx.Response:
    return service.http.post("/v1/embeddings", json={"model": "one", "input": TEXTS} | body)


def vectors(answer: httpx.Response) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    return np.array([each["embedding"] for each in answer.json()["data"]], dtype=np.float32)


def test_vectors_are_those_of_the_runtime(service: Service, goods: Goods) -> None:
    with Runtime(goods.bundle, threads=1, context=128, parallel=2) as runtime:
        for model in ("one", "base"):
            expected = runtime.embed(TEXTS, model)
            answer = ask(service, model=model)
            assert np.array_equal(vectors(answer), expected.vectors)
            document = answer.json()
            assert document["object"] == "list"
            assert document["model"] == model
            assert [each["index"] for each in document["data"]] == [0, 1]
            total = sum(expected.tokens)
            assert document["usage"] == {"prompt_tokens": total, "total_tokens": total}
        half = runtime.embed(TEXTS, lora={"one": 0.5}).vectors
        tokens = [runtime.texts.tokenize(text) for text in TEXTS]
    assert np.array_equal(vectors(ask(service, lora=[{"id": "one", "scale": 0.5}])), half)
    whole = vectors(ask(service))
    assert np.array_equal(vectors(ask(service, input=tokens)), whole)
    assert np.array_equal(vectors(ask(service, input=tokens[0])), whole[:1])
    assert np.array_equal(vectors(ask(service, input=TEXTS[0])), whole[:1])
    coded = ask(service, encoding_format="base64").json()["data"]
    assert np.array_equal([np.frombuffer(base64.b64decode(each["embedding"]), "<f4") for each in coded], whole)
    assert np.linalg.norm(vectors(ask(service, dimensions=5)), axis=1) == pytest.approx(1)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"input": None}, 400, "input has to be"),
        ({"input": []}, 400, "input has to be"),
        ({"input": [True]}, 400, "input has to be"),
        ({"input": ["a", 1]}, 400, "input has to be"),
        ({"input": [[1.5]]}, 400, "input has to be"),
        ({"input": ""}, 400, "text 1 is empty"),
        ({"input": [[]]}, 400, "text 1 is empty"),
        ({"input": [10**6]}, 400, "doesn't know"),
        ({"input": "scratch " * 500}, 400, "context"),
        ({"encoding_format": "int8"}, 400, "encoding_format 'int8' is not available"),
        ({"dimensions": 0}, 400, "dimensions has to be"),
        ({"dimensions": 65}, 400, "ask for 1 to 64"),
        ({"normalize": False}, 400, "normalize has to be true"),
        ({"model": ""}, 400, "model is missing"),
        ({"model": "nobody"}, 404, "there is no model 'nobody'"),
        ({"lora": [{"id": "nobody"}]}, 400, "nobody"),
    ],
)
def test_what_is_not_done_is_refused(service: Service, body: dict[str, Any], status: int, words: str) -> None:
    answer = ask(service, **body)
    assert answer.status_code == status
    assert words in answer.json()["error"]["message"]


def test_what_is_too_long_has_the_code_that_clients_look_for(service: Service) -> None:
    assert ask(service, input="scratch " * 500).json()["error"]["code"] == "context_length_exceeded"
    assert ask(service, odd=1).headers["x-edgekit-ignored"] == "odd"


def test_an_engine_that_dies_is_asked_again(service: Service) -> None:
    expected = vectors(ask(service))
    worker = service.worker
    os.kill(worker, signal.SIGSTOP)
    found: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: found.append(ask(service)))
    asking.start()
    service.wait_for(lambda: service.status()["busy"])
    os.kill(worker, signal.SIGKILL)
    asking.join()
    assert np.array_equal(vectors(found[0]), expected)
    assert service.worker != worker


def test_who_leaves_is_not_read_for(service: Service) -> None:
    body = {"model": "one", "input": [TEXTS[1]] * 2000}
    worker = service.worker
    os.kill(worker, signal.SIGSTOP)
    with pytest.raises(httpx.ReadTimeout):
        service.http.post("/v1/embeddings", json=body, timeout=1)
    service.wait_for(lambda: not service.status()["busy"])
    os.kill(worker, signal.SIGCONT)
    assert vectors(ask(service)).shape == (2, 64)


def test_the_queue_has_an_end_and_figures_count_texts(goods: Goods) -> None:
    with serving(goods.bundle, "--queue", "1") as service:
        worker = service.worker
        os.kill(worker, signal.SIGSTOP)
        asking = threading.Thread(target=lambda: ask(service))
        asking.start()
        service.wait_for(lambda: service.status()["busy"] == 1)
        refused = ask(service)
        os.kill(worker, signal.SIGCONT)
        asking.join()
        assert refused.status_code == 429
        count = service.wait_for(lambda: service.status()["stats"].get("embedded_tokens"))
        figures = service.http.get("/metrics").text
        assert f"edgekit_embedded_tokens_total {count:.1f}" in figures
        assert 'edgekit_requests_total{model="one",outcome="embedded"} 1.0' in figures


def test_bundles_for_onnx_runtime_have_none(tiny_onnx_bundle: Path) -> None:
    with serving(tiny_onnx_bundle, "--context", "64") as service:
        answer = ask(service)
        assert answer.status_code == 400
        assert "export the base with --format gguf" in answer.json()["error"]["message"]
        assert service.text()
