"""Requests of any kind to a real service: each is answered, or refused as its API does it, and others go on."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable

import httpx
import psutil

from tests.goods import Goods
from tests.runtime.torture.written_requests import COUNT, MESSAGES, RESPONSES, Asker, Body
from tests.service import Service, serving

SLOWEST = 5.0  # seconds for one answer on a machine that does nothing else
PATIENCE = 60.0  # and on any other
MIB = 1024**2
OF_ANTHROPIC = (MESSAGES, COUNT)
# Events that streams end with, where they say so themselves.
LAST = {
    RESPONSES: ("response.completed", "response.incomplete", "response.failed"),
    MESSAGES: ("message_stop", "error"),
}


def test_written_requests(goods: Goods, torture: bool, figures: Callable[[str, object], None]) -> None:
    """An answer, or a 4xx that says why; the engine lives, and others are answered as before."""
    asker, counts = Asker(8), Counter[str]()
    slowest, count = 0.0, 10_000 if torture else 400
    with serving(goods.bundle) as service, httpx.Client(base_url=service.url, timeout=PATIENCE) as client:
        before, worker, front = service.text(), service.worker, psutil.Process(service.process.pid)
        for number in range(count):
            body = asker.body()
            began = time.monotonic()
            counts[_outcome(client, body)] += 1
            slowest = max(slowest, time.monotonic() - began)
            if number == count // 5:  # the first fifth warms up
                memory = front.memory_info().rss
        assert not torture or slowest < SLOWEST
        assert service.text() == before
        assert (service.worker, service.status()["restarts"]) == (worker, 0)
        assert service.status()["busy"] == 0
        _check_log(service)
        grown = (front.memory_info().rss - memory) / MIB
    assert min(counts["200"], counts["400"]) > count // 8  # or they would prove little
    for kind, each in sorted(counts.items()):
        figures(f"written requests: {kind}", each)
    figures("written requests: slowest answer, s", round(slowest, 2))
    figures("written requests: the front grew by, MiB", round(grown, 1))


def _outcome(client: httpx.Client, body: Body) -> str:
    """What it was answered with; fails over what no answer may be."""
    shown = f"{body.path} {body.headers} {body.content[:1000]!r}"
    try:
        answer = client.post(body.path, content=body.content, headers=body.headers)
    except httpx.RemoteProtocolError as error:
        raise AssertionError(f"{error}: {shown}") from None
    assert answer.status_code in (200, 400, 404, 409, 413, 415, 417, 429), (
        answer.status_code,
        answer.text[:1000],
        shown,
    )
    if answer.status_code != 200:
        _check_error(answer.json(), shown, anthropic=body.path in OF_ANTHROPIC)
        return str(answer.status_code)
    if not answer.headers["content-type"].startswith("text/event-stream"):
        answer.json()
        return "200"
    if body.path in LAST:
        return _typed_outcome(answer.text, LAST[body.path], shown)
    *events, last, empty = answer.text.split("\n\n")
    documents = [_document(each) for each in events]
    failed = [each for each in documents if "error" in each]
    if failed:
        _check_error(failed[0], shown)
        assert failed[0]["error"]["type"] == "invalid_request_error", (failed, shown)
        return "200, and an error in the stream"
    assert (last, empty) == ("data: [DONE]", ""), (answer.text[-500:], shown)
    return "200"


def _typed_outcome(text: str, last: tuple[str, ...], shown: str) -> str:
    """The same of a stream whose events have names."""
    *events, empty = text.split("\n\n")
    kinds = []
    for each in events:
        name, _, data = each.partition("\n")
        document = _document(data)
        assert name == f"event: {document['type']}", shown
        kinds.append(document["type"])
    assert kinds[-1] in last, (kinds, shown)
    assert not empty, shown
    return "200, and an error in the stream" if kinds[-1] in ("response.failed", "error") else "200"


def _document(event: str) -> dict[str, object]:
    found = json.loads(event.removeprefix("data: "), parse_constant=lambda name: 1 / 0)
    assert isinstance(found, dict)
    return found


def _check_error(document: dict[str, object], shown: str, *, anthropic: bool = False) -> None:
    error = document["error"]
    assert isinstance(error, dict), shown
    if anthropic:
        assert document["type"] == "error", shown
        assert error.keys() - {"details"} == {"message", "type"}, shown
    else:
        assert error.keys() == {"message", "type", "code", "param"}, shown
    own = ("not_found_error", "request_too_large") if anthropic else ()
    kinds = ("invalid_request_error", "rate_limit_error", *own)
    assert error["type"] in kinds, shown
    assert 0 < len(error["message"]) < 5000, (error["message"][:300], shown)


def _check_log(service: Service) -> None:
    log = "".join(service.lines)
    for word in ("Traceback", "a request failed", "Exception", "never awaited"):
        assert word not in log, log[max(0, log.index(word) - 500) : log.index(word) + 3000]
