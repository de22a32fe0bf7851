"""A client that goes away is noticed while its request is answered."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.requests import Request


class ClientGone(Exception):
    """Nobody reads the answer."""


@contextlib.asynccontextmanager
async def heeding(request: Request) -> AsyncIterator[None]:
    """Stop the block, by ClientGone, when the client goes away.  What it awaits first is begun at once."""
    me = asyncio.current_task()
    assert me is not None  # a request is handled in one
    inside = True
    gone = asyncio.ensure_future(_gone(request))
    gone.add_done_callback(lambda each: me.cancel() if inside and not each.cancelled() else None)
    try:
        yield
    except asyncio.CancelledError:
        if gone.cancelled() or not gone.done():
            raise
        me.uncancel()
        raise ClientGone from None
    finally:
        inside = False
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
