"""Several answers as one stream: of some prompts, or some to one prompt."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence

from edgekit_runtime.server.wire import Message

PING_SECONDS = 10.0  # proxies end streams that are silent for 30 seconds or a minute

Events = AsyncGenerator[Message, None]
Numbered = AsyncGenerator[tuple[int, Message], None]


async def together(answers: Sequence[Events]) -> Numbered:
    """Events of several answers as they come, each with its answer's number.

    The first one, "accepted", comes when all of them are.  An error of one ends them all.
    """
    waiting, held = len(answers), list[tuple[int, Message]]()
    async with contextlib.aclosing(_merged(answers)) as events:
        async for number, event in events:
            if event["op"] == "accepted":
                waiting -= 1
                if not waiting:
                    yield number, event
                    for each in held:
                        yield each
            elif waiting:
                held.append((number, event))
            else:
                yield number, event


async def kept_alive(
    pieces: AsyncGenerator[str, None], ping: Callable[[], str], seconds: float
) -> AsyncGenerator[str, None]:
    """Pieces as they come, and a ``ping`` wherever none has come for so many seconds."""

    async def following() -> str | None:
        return await anext(pieces, None)

    coming = asyncio.create_task(following())
    try:
        while True:
            while not (await asyncio.wait({coming}, timeout=seconds))[0]:
                yield ping()
            piece = coming.result()
            if piece is None:
                return
            yield piece
            coming = asyncio.create_task(following())
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
        await pieces.aclose()


async def _merged(answers: Sequence[Events]) -> Numbered:
    if len(answers) == 1:  # as nearly always: without a task for it
        async with contextlib.aclosing(answers[0]) as events:
            async for event in events:
                yield 0, event
        return
    come: asyncio.Queue[tuple[int, Message | Exception | None]] = asyncio.Queue()

    async def read(number: int, events: Events) -> None:
        try:
            async with contextlib.aclosing(events):
                async for event in events:
                    come.put_nowait((number, event))
            come.put_nowait((number, None))
        except Exception as error:
            come.put_nowait((number, error))

    readers = [asyncio.create_task(read(*each)) for each in enumerate(answers)]
    try:
        left = len(readers)
        while left:
            number, what = await come.get()
            if isinstance(what, Exception):
                raise what
            if what is None:
                left -= 1
            else:
                yield number, what
    finally:
        for each in readers:
            each.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
