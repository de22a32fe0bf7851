"""Many questions to a teacher at a time, within a budget."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

Job = TypeVar("Job")


@dataclass
class Budget:
    """What a run may cost; None for without end.

    Attributes:
        rows: in the file, those of earlier runs included.
        tokens: of prompts and answers, those of earlier runs and of refused rows included.
        seconds: of this run.
    """

    rows: int | None = None
    tokens: int | None = None
    seconds: float | None = None
    begun: float = field(default_factory=time.monotonic)

    def spent(self, rows: int, tokens: int) -> str | None:
        """What has been used up; None while all is left."""
        if self.rows is not None and rows >= self.rows:
            return "rows"
        if self.tokens is not None and tokens >= self.tokens:
            return "tokens"
        if self.seconds is not None and time.monotonic() - self.begun >= self.seconds:
            return "time"
        return None


async def ask_all(next_job: Callable[[], Job | None], do: Callable[[Job], Awaitable[None]], concurrency: int) -> None:
    """Do jobs, ``concurrency`` at a time, until there is none and none is running.

    Args:
        next_job: gives a job, or None while there is none: what is running may change that.
        do: does one.
        concurrency: how many run at a time.

    Raises:
        whatever ``do`` raises; the other jobs are given up then.
    """
    running: set[asyncio.Task[None]] = set()
    try:
        while True:
            while len(running) < concurrency and (job := next_job()) is not None:
                running.add(asyncio.ensure_future(do(job)))
            if not running:
                return
            finished, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for each in finished:
                each.result()
    finally:
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)
