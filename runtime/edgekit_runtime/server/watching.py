"""A folder whose adapter files are live at once: each is looked at when it has stopped changing, and told of once."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from edgekit_runtime.errors import EdgekitError, InputError
from edgekit_runtime.formats.adapter import ADAPTER_SUFFIXES
from edgekit_runtime.formats.trust import signature_file
from edgekit_runtime.server.supervisor import Unavailable
from edgekit_runtime.server.threads import beside

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2
SETTLE_SECONDS = 2.0  # a file that is no good may still be on its way
REJECTED = "rejected"
KEPT_REJECTIONS = 20  # shown

# What it is, which one, how large, how old, and when that was said: a copy may bring the times of its source along.
State: TypeAlias = "tuple[int, int, int, int, int]"


@dataclass
class _Seen:
    state: State
    since: float
    tried: bool = False
    done: bool = False


class Watched:
    """What lies in a folder, and what was refused of it."""

    def __init__(self, folder: Path, take: Callable[[Path], Awaitable[bool]]) -> None:
        """Watch ``folder``, and make it where there is none.

        Args:
            folder: where files are put.
            take: makes one live, and tells whether it is not needed there any longer; raises EdgekitError.

        Raises:
            InputError: it can't be made.
        """
        self._folder, self._take = folder, take
        self._seen: dict[Path, _Seen] = {}
        self.rejected: deque[dict[str, Any]] = deque(maxlen=KEPT_REJECTIONS)
        try:
            (folder / REJECTED).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder} can't be watched ({error})", "give a folder that can be written") from None

    async def look(self) -> None:
        """One round.

        Raises:
            OSError: the folder can't be read.
        """
        found = await beside(self._scan)
        now = time.monotonic()
        self._seen = {path: seen for path, seen in self._seen.items() if path in found}
        for path, state in sorted(found.items()):
            seen = self._seen.get(path)
            if seen is None or seen.state != state:
                self._seen[path] = _Seen(state, now)  # the next round sees whether it still changes
                continue
            settled = now - seen.since > SETTLE_SECONDS or not stat.S_ISREG(state[0])
            if not seen.done and (settled or not seen.tried):
                await self._try(path, seen, settled)

    def _scan(self) -> dict[Path, State]:
        with os.scandir(self._folder) as entries:
            paths = [self._folder / entry.name for entry in entries]
        states = {path: _state(path) for path in paths if path.suffix in ADAPTER_SUFFIXES}
        return {path: state for path, state in states.items() if state is not None}

    async def _try(self, path: Path, seen: _Seen, settled: bool) -> None:
        try:
            taken = await self._take(path)
        except Unavailable:
            return  # again in the next round
        except Exception as error:
            if not isinstance(error, EdgekitError | OSError):
                log.exception("%s could not be taken", path)
            seen.tried = True
            if settled:
                seen.done = True
                await beside(self._reject, path, seen.state, str(error))
            return
        seen.done = True
        if taken:
            await beside(_remove, path, seen.state)

    def _reject(self, path: Path, state: State, why: str) -> None:
        """Put it aside with the reason, unless it is another file by now."""
        if _state(path) != state:
            return
        log.error("%s is rejected: %s", path, why)
        self.rejected.append({"time": time.time(), "file": path.name, "why": why})
        folder = self._folder / REJECTED
        try:
            for each in (path, signature_file(path)):
                if os.path.lexists(each):
                    each.replace(_free(folder / each.name, each))
            reason = _free(folder / f"{path.name}.txt", None)
            scratch = reason.with_suffix(".part")
            scratch.write_text(why + "\n", encoding="utf-8")
            scratch.replace(reason)  # whoever sees it sees all of it
        except OSError as error:
            log.error("%s can't be put aside (%s)", path, error)


async def look_always(look: Callable[[], Awaitable[None]]) -> None:
    """Look again and again, whatever comes of it; the same error is told once in a row."""
    told = ""
    while True:
        try:
            await look()
            told = ""
        except Unavailable:
            pass  # there is no engine now
        except Exception as error:
            if str(error) != told:
                told = str(error)
                log.error("%s", error, exc_info=not isinstance(error, EdgekitError | OSError))
        await asyncio.sleep(POLL_SECONDS)


def _state(path: Path) -> State | None:
    """Of the file that is opened; of a link that leads nowhere its own; None when it has gone."""
    for look in (os.stat, os.lstat):
        try:
            found = look(path)
            return found.st_mode, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
        except OSError:
            continue
    return None


def _free(target: Path, source: Path | None) -> Path:
    """A place that can be written: a file replaces a file, and nothing else."""
    free, number = target, 0
    while os.path.lexists(free) and (free.is_dir() or (source is not None and source.is_dir())):
        number += 1
        free = target.with_name(f"{target.name}.{number}")
    return free


def _remove(path: Path, state: State) -> None:
    """Take away what is installed now, unless it is another file by now."""
    if _state(path) == state:
        for each in (path, signature_file(path)):
            try:
                each.unlink(missing_ok=True)
            except OSError as error:
                log.error("%s is installed, and can't be removed (%s)", each, error)
