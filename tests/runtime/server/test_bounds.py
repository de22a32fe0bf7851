"""No request under 1 MiB holds up the others: what is too much is told, and the engine goes on."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.goods import Goods
from tests.runtime.server.test_app import CHAT, COMPLETIONS
from tests.service import Service, serving

USER = {"role": "user", "content": "x"}


def schema(of: dict[str, Any]) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"schema": of}}}


def nested(depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        found = {"type": "array", "items": found}
    return found


HOSTILE: dict[str, tuple[str, dict[str, Any], str]] = {
    "messages": (CHAT, {"messages": [USER] * 20_000}, "20000 messages"),
    "long message": (CHAT, {"messages": [{"role": "user", "content": "word " * 150_000}]}, "context"),
    "special tokens": (COMPLETIONS, {"prompt": "<|im_end|>" * 40_000}, "context"),
    "one word": (COMPLETIONS, {"prompt": "a" * 900_000}, "context"),
    "stops": (CHAT, {"stop": [f"s{n}" for n in range(100_000)]}, "100000 stop texts"),
    "long stop": (CHAT, {"stop": "x" * 900_000}, "a stop text has 900000"),
    "adapters": (CHAT, {"lora": [{"id": f"a{n}"} for n in range(20_000)]}, "20000 adapters"),
    "enum": (CHAT, schema({"enum": [f"{n}" for n in range(60_000)]}), "the schema has"),
    "grammar": (CHAT, {"grammar": 'root ::= "a"' + " " * 900_000}, "the grammar has"),
    "brackets": (CHAT, {"grammar": "root ::= " + "(" * 60_000}, "the grammar can't be read"),
    "deep schema": (CHAT, schema(nested(40)), "the schema is nested deeper"),
    "deep body": (CHAT, {"stop": json.loads("[" * 500 + "]" * 500)}, "the body is nested deeper"),
    "optional properties": (
        CHAT,
        schema({"type": "object", "properties": {f"p{n}": {"type": "null"} for n in range(1500)}}),
        "the schema can't be held",
    ),
    "options": (CHAT, schema({"type": "string", "pattern": "^" + "a?" * 1000 + "$"}), "can't be held"),
    "repeats": (CHAT, schema({"type": "string", "pattern": "^a{1000000000}$"}), "can't be held"),
}


@pytest.fixture(scope="module")
def service(goods: Goods) -> Iterator[Service]:
    with serving(goods.bundle, "--parallel", "2") as started:
        yield started


@pytest.mark.parametrize("kind", HOSTILE)
def test_too_much_is_told_while_a_neighbour_is_answered(service: Service, kind: str) -> None:
    path, change, words = HOSTILE[kind]
    before, worker = service.text(), service.worker
    body = {"model": "one", "max_tokens": 2} | ({"messages": [USER]} if path == CHAT else {}) | change
    said: list[Any] = []
    asking = threading.Thread(target=lambda: said.append(service.http.post(path, json=body)))
    asking.start()
    assert service.text() == before
    asking.join()
    assert said[0].status_code == 400
    assert words in said[0].json()["error"]["message"]
    assert len(said[0].content) < 2000
    assert service.worker == worker


def test_a_plain_schema_is_within_the_bounds(service: Service) -> None:
    of = {"type": "object", "properties": {"id": {"type": "string", "pattern": "^([0-9]{1,3}-){3}[0-9]{1,3}$"}}}
    assert service.chat(**schema(of)).status_code == 200
