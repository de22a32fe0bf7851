"""From a checked request to its answer, whole or as a stream, in the words of the protocol that asks.

Requests that wait are bounded, and more are turned away with 429; when a client goes away its generation stops.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from edgekit_runtime.errors import EdgekitError, InputError, TargetError, UsageError
from edgekit_runtime.formats.manifest import AUTO, BASE
from edgekit_runtime.server import parameters
from edgekit_runtime.server.asked import Asked
from edgekit_runtime.server.bodies import (
    URLS,
    ImagePlaces,
    Images,
    Reading,
    Room,
    Share,
    cut_images,
    placed,
    read_body,
    read_object,
)
from edgekit_runtime.server.disconnects import ClientGone, heeding
from edgekit_runtime.server.guard import Handler
from edgekit_runtime.server.images import ImageReader
from edgekit_runtime.server.metrics import Metrics
from edgekit_runtime.server.models import adapter_names
from edgekit_runtime.server.parts import PartReader
from edgekit_runtime.server.reasoning import told_apart
from edgekit_runtime.server.refusals import ErrorForm, NoModel, NoRouter, Refused, openai_error, refusal_of
from edgekit_runtime.server.streaming import PING_SECONDS, Numbered, kept_alive, together
from edgekit_runtime.server.supervisor import Supervisor
from edgekit_runtime.server.wire import Message

Document = dict[str, Any]
ROUTE = "X-Edgekit-Route"  # header of answers to ``auto``
EMBEDDED = "embedded"  # the outcome of vectors, which have no reason to end
# What of a request its prompt depends on.
OF_PROMPTS = (
    *("messages", "image", "adapter", "lora", "tools"),
    *("chat_template_kwargs", "reasoning_effort", "add_generation_prompt", "continue_final_message"),
)


class Writer(Protocol):
    """Says one answer as the clients of a protocol read it."""

    def whole(self, results: list[Document], scores: list[list[Any]]) -> Document:
        """The answer in one piece: the worker's results, and the scores of the tokens of each."""


@runtime_checkable
class StreamWriter(Writer, Protocol):
    """And as pieces of the body of a stream, or as the answer of an adapter that the device has chosen."""

    media_type: str

    def answered_by(self, route: Document) -> None:
        """Who answers, where the request left that open; called before anything is said."""

    def begun(self, accepted: Message) -> Iterable[str]:
        """What a stream begins with, when the worker has accepted the request."""

    def piece(self, index: int, event: Message) -> Iterable[str]:
        """What a choice goes on with: the worker's "text", or "progress" where ``Asked.progress`` asks for it."""

    def done(self, index: int, event: Message) -> Iterable[str]:
        """What a choice ends with: the worker's "done"."""

    def ping(self) -> str:
        """What changes nothing for clients, and shows proxies that the stream lives."""

    def ended(self) -> Iterable[str]:
        """What a stream ends with."""

    def failed(self, refused: Refused) -> Iterable[str]:
        """And where it breaks off; the status has been sent by then."""


Reader = Callable[[Document, Sequence[str]], tuple[Asked, Writer]]


@dataclass(frozen=True)
class Dialect:
    """A kind of request: how its bodies are read, given the names of adapters, and how its errors are told.

    ``images``: where bodies hold some; None where they can't.
    """

    read: Reader
    errors: ErrorForm = openai_error
    images: ImagePlaces | None = URLS


class Answering:
    """Answers requests of all dialects, within the bounds that they share."""

    def __init__(
        self, supervisor: Supervisor, metrics: Metrics, images: ImageReader, *, queue: int, timeout: float
    ) -> None:
        """Answer through the worker; ``queue`` requests may wait or run, each for ``timeout`` seconds."""
        self._supervisor, self._metrics, self._images = supervisor, metrics, images
        self._queue, self._timeout = queue, timeout
        self.busy = 0
        self._room, self._reading = Room(), Reading()

    def route(self, dialect: Dialect) -> Handler:
        """What answers requests of a dialect."""

        async def handle(request: Request) -> Response:
            with contextlib.ExitStack() as held:
                share = held.enter_context(self._room.share())
                asked, writer = await self._read(request, share, dialect)
                return await self._answer(request, asked, writer, held.pop_all())

        return handle

    def counting(self, dialect: Dialect, told: Callable[[int], Document]) -> Handler:
        """What answers requests of a dialect with the tokens of their prompts, in the form of ``told``."""

        async def handle(request: Request) -> Response:
            with self._room.share() as share:
                asked, _ = await self._read(request, share, dialect)
                self._check_model(asked)
                options = {name: asked.options[0].get(name) for name in OF_PROMPTS}
                tokens = await self._supervisor.inspect("count", options | {"tools": options["tools"] or []})
            return JSONResponse(told(tokens), headers=parameters.header_of(asked.ignored))

        return handle

    async def read_object(self, request: Request) -> Document:
        """The body of a request that has a route of its own."""
        with self._room.share() as share:
            return await self._reading.read(read_object, await read_body(request, share))

    async def _read(self, request: Request, share: Share, dialect: Dialect) -> tuple[Asked, Writer]:
        """What is asked for; ``share`` holds the pixels of its images then, and its body no longer."""
        adapters = adapter_names(self._supervisor)
        places = dialect.images
        most_images = 0 if places is None else self._images.max_body_bytes

        def read(body: bytearray) -> tuple[Asked, Writer, Images]:
            text, images = cut_images(body, places) if places is not None and most_images else (body, Images())
            return *dialect.read(read_object(text), adapters), images

        body = await read_body(request, share, most_images)
        asked, writer, images = await self._reading.read(read, body)
        first = asked.options[0] if asked.options else {}
        if urls := first.get("image"):
            bare = places is not None and places.bare
            found = await self._images.read(placed(urls, images), share, len(body), bare=bare)
            for each in asked.options:
                each["image"] = found
        share.hold(sum(len(each["rgb"]) for each in first.get("image") or ()))
        return asked, writer

    def _check_model(self, asked: Asked) -> None:
        model = asked.model
        if model == BASE or model in self._supervisor.names:
            return
        if model != AUTO:
            raise NoModel(model)
        if not self._supervisor.chooses:
            raise NoRouter
        if asked.embeds:
            raise InputError("vectors under adapters that auto chooses can't be compared", "name an adapter, or base")
        if len(asked.options) > asked.n:
            raise InputError("auto answers one prompt at a time", "send several requests, or name an adapter")

    async def _answer(self, request: Request, asked: Asked, writer: Writer, held: contextlib.ExitStack) -> Response:
        """Answer; ``held`` is closed when that is done."""
        with contextlib.ExitStack() as here:
            here.enter_context(held)
            self._check(asked)
            headers = parameters.header_of(asked.ignored)
            if not asked.options:
                return JSONResponse(writer.whole([], []), headers=headers)
            # From here to where it is counted nothing may be awaited: others would slip past the limit in between.
            if not asked.stream:
                with self._counted(len(asked.options)):
                    async with heeding(request):
                        results, scores, route = await self._whole(asked)
                    headers |= _told(writer, route)
                    return JSONResponse(writer.whole(results, scores), headers=headers)
            events = self._streamed(asked, here.pop_all())
            try:
                async with heeding(request):
                    _, accepted = await anext(events)  # or an error with a status of its own
            except ClientGone:
                await events.aclose()
                raise
        assert isinstance(writer, StreamWriter)  # whoever reads a wish for a stream has one
        headers |= _told(writer, accepted.get("route"))
        body = kept_alive(_pieces(writer, accepted, events), writer.ping, PING_SECONDS)
        return StreamingResponse(body, media_type=writer.media_type, headers=headers)

    def _check(self, asked: Asked) -> None:
        self._check_model(asked)
        if self.busy + len(asked.options) > max(self._queue, len(asked.options)):
            self._metrics.requests.labels(asked.model, "refused").inc()
            raise Refused(429, "too many requests are waiting", "rate_limit_error", "queue_full", later=True)

    @contextlib.contextmanager
    def _counted(self, prompts: int) -> Iterator[None]:
        """Prompts that run or wait, for as long as they do."""
        self.busy += prompts
        self._metrics.busy.set(self.busy)
        try:
            yield
        finally:
            self.busy -= prompts
            self._metrics.busy.set(self.busy)

    async def _streamed(self, asked: Asked, held: contextlib.ExitStack) -> Numbered:
        with held, self._counted(len(asked.options)):
            answers = [self._events(asked, options) for options in asked.options]
            async with contextlib.aclosing(together(answers)) as events:
                async for each in events:
                    yield each

    async def _whole(self, asked: Asked) -> tuple[list[Document], list[list[Any]], Document | None]:
        """All prompts at once, each answer in one piece: results, scores of tokens, and the adapter that was chosen."""
        route: Document | None = None

        async def one(options: Document) -> tuple[Document, list[Any]]:
            nonlocal route
            scores, texts, reader = list[Any](), list[Message](), PartReader(None)
            async with contextlib.aclosing(self._events(asked, options)) as events:
                async for event in events:
                    scores += event.get("scores", ())
                    if event["op"] == "accepted":
                        reader = PartReader(event.get("calls"))
                        route = event.get("route")  # the result of a request that was asked again has none
                    elif event["op"] == "text":
                        texts.append(event)
                    elif event["op"] == "done":
                        return reader.whole(texts, event["value"]), scores
            raise AssertionError("an answer without an end")

        done = await asyncio.gather(*map(one, asked.options), return_exceptions=True)
        answers = []
        for outcome in done:
            if isinstance(outcome, BaseException):
                raise outcome
            answers.append(outcome)
        results, scores = zip(*answers, strict=True)
        return list(results), list(scores), route

    async def _events(self, asked: Asked, options: Document) -> AsyncGenerator[Message, None]:
        """The worker's events for one prompt, within the time; what came of it goes into the metrics."""
        deadline = asyncio.get_running_loop().time() + self._timeout
        outcome, model = "cancelled", asked.model
        answer = (
            self._supervisor.embed(options)
            if asked.embeds
            else self._supervisor.answer(options, progress=asked.progress and asked.stream)
        )
        events = told_apart(answer) if asked.splits else answer
        try:
            while True:
                left = deadline - asyncio.get_running_loop().time()
                event = await asyncio.wait_for(anext(events), left)
                if "route" in event:
                    model = event["route"]["adapter"]
                if event["op"] == "done":
                    outcome = event["value"].get("finish_reason", EMBEDDED)
                    self._metrics.answered(model, event["value"])
                yield event
                if event["op"] == "done":
                    return
        except TimeoutError:
            outcome = "timeout"
            raise
        except (InputError, UsageError):
            outcome = "bad"
            raise
        except TargetError:
            outcome = "unavailable"
            raise
        finally:
            self._metrics.requests.labels(model, outcome).inc()
            await events.aclose()


def _told(writer: Writer, route: Document | None) -> dict[str, str]:
    """Tell a writer which adapter was chosen, if one was; the header that says so."""
    if route is None:
        return {}
    assert isinstance(writer, StreamWriter)  # vectors leave no choice
    writer.answered_by(route)
    fallback = "; fallback" if route["fallback"] else ""
    return {ROUTE: f"{route['adapter']}; confidence={route['confidence']:.4f}{fallback}"}


async def _pieces(writer: StreamWriter, accepted: Message, events: Numbered) -> AsyncGenerator[str, None]:
    """The body of a stream; leaving stops the generation."""
    try:
        for each in writer.begun(accepted):
            yield each
        async for index, event in events:
            for each in writer.done(index, event) if event["op"] == "done" else writer.piece(index, event):
                yield each
        for each in writer.ended():
            yield each
    except (EdgekitError, TimeoutError) as error:
        refused = refusal_of(error)
        assert refused is not None
        for each in writer.failed(refused):
            yield each
    finally:
        await events.aclose()
