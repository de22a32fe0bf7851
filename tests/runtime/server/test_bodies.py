"""Bodies of requests: large ones stop nobody, all together are bounded, and images come through as they are."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.images import Picture
from edgekit_runtime.server import answering, bodies
from edgekit_runtime.server.anthropic.dialect import MESSAGES as ANTHROPIC
from edgekit_runtime.server.app import make_app
from edgekit_runtime.server.bodies import (
    LEAST_IMAGE,
    MAX_BODY_BYTES,
    MIB,
    UNCOUNTED,
    NoRoom,
    Room,
    TooLarge,
    cut_images,
    placed,
)
from edgekit_runtime.server.images import ImageReader
from edgekit_runtime.server.openai import dialects
from edgekit_runtime.server.wire import Incoming, pack, with_pixels
from tests.runtime.server.test_limits import ANSWER

CHAT, COMPLETIONS, MESSAGES = "/v1/chat/completions", "/v1/completions", "/v1/messages"
LONG = "data:image/png;base64," + "+/Ab" * LEAST_IMAGE


class _Taking:
    """A worker that keeps what it is asked, and answers when it may."""

    ready, models, names, stats, restarts, pid, errors = True, (), frozenset[str](), {}, 0, 0, ()

    def __init__(self) -> None:
        self.go, self.asked = asyncio.Event(), list[dict[str, Any]]()

    async def answer(self, options: dict[str, Any], *, progress: bool = False) -> AsyncGenerator[dict[str, Any], None]:
        self.asked.append(options)
        yield {"op": "accepted"}
        await self.go.wait()
        yield {"op": "text", "text": "ok", "scores": []}
        yield {"op": "done", "value": ANSWER}


@asynccontextmanager
async def front(worker: _Taking, monkeypatch: pytest.MonkeyPatch, room: Room) -> AsyncIterator[httpx.AsyncClient]:
    monkeypatch.setattr(answering, "Room", lambda: room)
    app = make_app(worker, None, images=ImageReader(task="caption", files=None))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
        yield client


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 120))  # type: ignore[arg-type]


def asking(*urls: str, **more: Any) -> dict[str, Any]:
    parts: list[Any] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {"model": "base", "messages": [{"role": "user", "content": [*parts, {"type": "text", "text": "?"}]}]} | more


def data_url(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=0)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


URLS = st.sampled_from([LONG, LONG + "AA==", "data:short", "file:///a", "data:image/png;base64,"])
TEXTS = st.text() | st.sampled_from(
    ['"url": "data:x', '\\"image_url\\": \\"data:' + "A" * LEAST_IMAGE, LONG, "\\", '"']
)


@given(st.lists(URLS, max_size=4), TEXTS, st.booleans(), st.sampled_from([None, 1]), st.booleans())
@example([LONG], '"url":"data:', True, None, True)
def test_what_is_cut_out_and_put_back_is_what_was_sent(
    urls: list[str], text: str, ascii_only: bool, indent: int | None, slashes: bool
) -> None:
    document = asking(*urls, note=text)
    sent = json.dumps(document, ensure_ascii=ascii_only, indent=indent)
    body = bytearray((sent.replace("/", "\\/") if slashes else sent).encode())
    cut, images = cut_images(body)
    assert len(images) == sum(len(url) >= LEAST_IMAGE for url in urls)
    back = cut.decode()
    for name, url in images.items():
        back = back.replace(name, bytes(url).decode())
    assert json.loads(back) == document
    names = [part["image_url"]["url"] for part in json.loads(cut)["messages"][0]["content"][:-1]]
    found = [each if isinstance(each, str) else bytes(each).decode() for each in placed(names, images)]
    assert found == urls


DATA = "+/Ab" * LEAST_IMAGE
SOURCES = ANTHROPIC.images
assert SOURCES is not None


def blocks(*sources: dict[str, Any], **more: Any) -> dict[str, Any]:
    content = [{"type": "image", "source": each} for each in sources]
    return {"model": "base", "max_tokens": 9, "messages": [{"role": "user", "content": content}]} | more


@given(
    st.lists(st.permutations(["type", "media_type", "data"]), max_size=3),
    TEXTS,
    st.sampled_from([None, 1]),
    st.booleans(),
)
def test_base64_of_sources_is_cut_out_too(
    orders: list[list[str]], text: str, indent: int | None, slashes: bool
) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": DATA}
    note = {"type": "tool_use", "id": "1", "name": "f", "input": {"data": DATA, "text": text}}
    document = blocks(*({name: source[name] for name in order} for order in orders), note=note)
    sent = json.dumps(document, indent=indent)
    cut, images = cut_images(bytearray((sent.replace("/", "\\/") if slashes else sent).encode()), SOURCES)
    assert [bytes(each) for each in images.values()] == [DATA.encode()] * len(orders)
    back = cut.decode()
    for name in images:
        back = back.replace(name, DATA)
    assert json.loads(back) == document
    urls = [f"data:image/png;base64,{name}" for name in images]
    assert placed(urls, images) == list(images.values())


def test_what_stands_beside_no_source_is_text_of_any_length() -> None:
    text = json.dumps({"input": {"data": "x" * (MAX_BODY_BYTES - 100)}}).encode()
    assert cut_images(bytearray(text), SOURCES) == (text, {})
    with pytest.raises(TooLarge, match="without its images"):
        cut_images(bytearray(json.dumps({"input": {"data": "x" * MAX_BODY_BYTES}}).encode()), SOURCES)


@pytest.mark.parametrize("stream", [False, True])
def test_images_of_anthropics_clients_share_the_room(monkeypatch: pytest.MonkeyPatch, stream: bool) -> None:
    data = data_url(Image.new("RGB", (600, 600))).partition(",")[2]
    body = blocks({"type": "base64", "media_type": "image/png", "data": data}, stream=stream)

    async def scenario() -> None:
        worker, room = _Taking(), Room(3 * MIB)
        async with front(worker, monkeypatch, room) as client:
            asked = asyncio.create_task(client.post(MESSAGES, json=body))
            while not worker.asked:
                await asyncio.sleep(0.01)
            (picture,) = worker.asked[0]["image"]
            assert (picture["width"], picture["height"]) == (600, 600)
            assert room.held == 600 * 600 * 3 - UNCOUNTED
            full = await client.post(MESSAGES, json=body)
            assert (full.status_code, full.json()["error"]["type"]) == (503, "overloaded_error")
            worker.go.set()
            assert (await asked).status_code == 200
            assert room.held == 0

    run(scenario)


def test_an_image_in_another_place_is_refused_and_not_ignored() -> None:
    text, images = cut_images(bytearray(json.dumps(asking("file:///a", extra={"url": LONG})).encode()))
    assert LONG not in text.decode()
    with pytest.raises(InputError, match="where none is looked at"):
        placed(["file:///a"], images)


@pytest.mark.parametrize(
    "body", [b"x" * (MAX_BODY_BYTES + 1), b'{"url":"' + LONG.encode() + b'"' + b" " * MAX_BODY_BYTES]
)
def test_what_is_no_image_is_never_longer_than_a_text_body(body: bytes) -> None:
    with pytest.raises(TooLarge, match="without its images"):
        cut_images(bytearray(body))


@pytest.mark.parametrize("body", [b"", b'{"url":"data:', b'{"url":"data:' + b"A" * 2 * LEAST_IMAGE, b"\xff" * 99])
def test_half_a_body_is_left_to_the_json_reader(body: bytes) -> None:
    assert cut_images(bytearray(body)) == (body, {})


def test_the_loop_turns_while_a_hundred_megabytes_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = Image.effect_noise((1990, 1990), 100).convert("RGB")
    url = data_url(noise)
    body = json.dumps(asking(*[url] * 6)).encode()
    assert len(body) > 90 * MIB
    read: list[int] = []
    loads = json.loads
    monkeypatch.setattr(json, "loads", lambda text: read.append(len(text)) or loads(text))

    async def scenario() -> None:
        worker, room = _Taking(), Room(400 * MIB)
        async with front(worker, monkeypatch, room) as client:
            asked = asyncio.create_task(client.post(CHAT, content=body))
            seen = 0
            while not worker.asked:
                assert not asked.done()
                seen += (await client.get("/health")).status_code == 200
                await asyncio.sleep(0.001)
            assert seen > 20  # a neighbour was answered as often meanwhile
            assert max(read) < 64 * 1024  # and no other thread waited for the JSON reader
            pixels = worker.asked[0]["image"]
            assert [Picture(**each) for each in pixels] == [Picture(1990, 1990, noise.tobytes())] * 6
            assert room.held == 6 * len(noise.tobytes()) - UNCOUNTED
            worker.go.set()
            assert (await asked).status_code == 200
            assert room.held == 0

    run(scenario)


@pytest.mark.parametrize("stream", [False, True])
def test_bodies_and_pixels_of_all_requests_share_a_room(monkeypatch: pytest.MonkeyPatch, stream: bool) -> None:
    url = data_url(Image.new("RGB", (600, 600)))  # 1.4 MB in base64, 1.1 MB of pixels

    async def scenario() -> None:
        worker, room = _Taking(), Room(3 * MIB)
        async with front(worker, monkeypatch, room) as client:
            first = asyncio.create_task(client.post(CHAT, json=asking(url, stream=stream)))
            while not worker.asked:
                await asyncio.sleep(0.01)
            assert room.held == 600 * 600 * 3 - UNCOUNTED
            full = await client.post(CHAT, json=asking(url))
            assert (full.status_code, full.json()["error"]["code"]) == (503, "no_room")
            assert full.headers["retry-after"] == "1"
            never = await client.post(CHAT, json=asking(url, url, url))
            assert (never.status_code, never.json()["error"]["code"]) == (413, "too_large")
            short = asyncio.create_task(client.post(COMPLETIONS, json={"model": "base", "prompt": "x"}))
            while len(worker.asked) < 2:  # a short one is answered
                assert not short.done()
                await asyncio.sleep(0.01)
            worker.go.set()
            assert (await first).status_code == (await short).status_code == 200
            assert room.held == 0
            assert (await client.post(CHAT, json=asking(url))).status_code == 200
            assert (await client.post(CHAT, json=asking(url, model="nobody"))).status_code == 404
            assert (await client.post(CHAT, json=asking(url[:-9]))).status_code == 400
            assert room.held == 0

    run(scenario)


def test_a_share_that_does_not_fit_changes_nothing() -> None:
    room = Room(10 * MIB)
    with room.share() as one, room.share() as other:
        one.hold(8 * MIB)
        held = room.held
        with pytest.raises(NoRoom):
            other.hold(3 * MIB)
        with pytest.raises(TooLarge):
            one.hold(11 * MIB)
        assert room.held == held
        one.hold(MIB)
        other.hold(3 * MIB)
    assert room.held == 0


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, "/v1/load_lora_adapter", "/v1/unload_lora_adapter"])
def test_a_body_that_comes_too_late_and_one_that_is_too_long_are_told_so(
    monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(bodies, "BODY_SECONDS", 0.2)

    async def late() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(60)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * MIB

    async def scenario() -> None:
        async with front(_Taking(), monkeypatch, Room(4 * MIB)) as client:
            answer = await client.post(path, content=late())
            assert (answer.status_code, answer.json()["error"]["code"]) == (408, "request_timeout")
            answer = await client.post(path, content=endless())
            assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
            answer = await client.post(path, content=late(), headers={"Content-Length": "9" * 18})
            assert answer.status_code == 413  # at once

    run(scenario)


def test_names_that_are_echoed_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with front(_Taking(), monkeypatch, Room()) as client:
            name = "x\u202e" * 100_000
            for path, body in (
                (CHAT, asking(model=name)),
                (COMPLETIONS, {"model": name, "prompt": "x"}),
                ("/v1/unload_lora_adapter", {"lora_name": name}),
                ("/" + "x" * 9000, {}),
            ):
                answer = await client.post(path, json=body)
                assert answer.status_code == 404
                assert len(answer.content) < 600
                assert "\u202e" not in answer.json()["error"]["message"]

    run(scenario)


PIXELS = st.lists(st.binary(max_size=50).map(lambda rgb: {"width": 1, "height": 1, "rgb": rgb}), max_size=3)


@given(st.lists(PIXELS, max_size=4), st.integers(1, 40))
def test_pixels_come_through_the_wire_in_any_pieces(requests: list[list[dict[str, Any]]], piece: int) -> None:
    messages = [{"op": "start", "id": n, "options": {"image": each or None}} for n, each in enumerate(requests)]
    sent = b"".join(b"".join(with_pixels(each)) + pack({"op": "cancel", "id": 9}) for each in messages)
    incoming = Incoming()
    found = [each for at in range(0, len(sent), piece) for each in incoming.feed(sent[at : at + piece])]
    assert [each for each in found if each["op"] == "start"] == messages
    assert sum(each["op"] == "cancel" for each in found) == len(messages)


def test_threads_that_read_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once, most, lock = 0, 0, threading.Lock()
    whole = dialects.read_completion

    def counted(*given: Any) -> Any:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        threading.Event().wait(0.05)
        with lock:
            at_once -= 1
        return whole(*given)

    monkeypatch.setattr(dialects, "read_completion", counted)

    async def scenario() -> None:
        worker = _Taking()
        worker.go.set()
        async with front(worker, monkeypatch, Room()) as client:
            body = {"model": "base", "prompt": "x" * 2 * bodies.QUICK}
            answers = await asyncio.gather(*(client.post(COMPLETIONS, json=body) for _ in range(12)))
            assert [each.status_code for each in answers] == [200] * 12
            assert most == bodies.READING_AT_ONCE

    run(scenario)
