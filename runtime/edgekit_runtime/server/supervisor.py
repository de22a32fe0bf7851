"""Keeps a worker alive, and gives requests to it.

A worker that dies or hangs is replaced.  Requests it had are asked again of the next one, once: their seeds are fixed,
so the answer goes on where it stopped.  Where it comes out otherwise, it ends with an error.  A request that saw two
workers die is given up: it may be what kills them.
When a worker crashes or hangs, only the requests whose adapters were at work in it count that, and an adapter that was
so twice is set aside (:mod:`~edgekit_runtime.server.blame`).  So do requests that were being read; where no adapter
is to blame, the request is refused when it comes again (:mod:`~edgekit_runtime.server.killers`).  SIGKILL and the like
are nobody's fault.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Any

from edgekit_runtime.errors import EdgekitError, InputError, TargetError
from edgekit_runtime.formats.manifest import AUTO
from edgekit_runtime.server.at_work import AtWork, Crash, shared_file
from edgekit_runtime.server.blame import Blame
from edgekit_runtime.server.engine_process import NOBODYS_FAULT, EngineProcess, ending
from edgekit_runtime.server.killers import Killers, request_key
from edgekit_runtime.server.left_out import ASIDE, LeftOut
from edgekit_runtime.server.threads import beside
from edgekit_runtime.server.underway import Request
from edgekit_runtime.server.wire import Message, message_error

log = logging.getLogger(__name__)

HANG_SECONDS = 120.0  # without a sign of life
READY_SECONDS = 15.0  # that a request waits for a new worker
STEADY_SECONDS = 5.0  # a worker that lived so long was no failed start
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 30.0  # before the next start, doubled each time
MOST_LIVES = 2  # workers that a request may see die
KEPT_ERRORS = 20


class Unavailable(TargetError):
    """There is no worker now; the same request may succeed later."""


class SetAside(InputError):
    """The adapter may not answer until it is installed or loaded again."""


class Deadly(InputError):
    """The engine dies of this request, whatever adapter."""


class Supervisor:
    """The front's side of the worker."""

    def __init__(self, settings: dict[str, Any], *, hang_seconds: float = HANG_SECONDS) -> None:
        """Take the runtime's arguments; nothing is started yet."""
        self._settings = settings
        self._hang_seconds = hang_seconds
        self._requests: dict[int, Request] = {}
        self._added: dict[str, Message] = {}  # adapters loaded at run time, for the next worker
        self._removed: dict[str, Message] = {}
        self._left_out = LeftOut()
        self._running: list[Message] = []  # the worker's models
        self._blame, self._killers = Blame(), Killers()
        self._shared = shared_file()
        self._at_work = AtWork(self._shared)
        self._apart = False  # after a crash: if it comes again, it shall be known whose it was
        self.on_set_aside: Callable[[str, str], object] = lambda digest, why: None
        self._ready = asyncio.Event()
        self._process = EngineProcess(self._shared)
        self._keeper: asyncio.Task[None] | None = None
        self._count = 0
        self._answered = False  # whether this worker has ended any request
        self.stats: dict[str, Any] = {}
        self.bundle: Message | None = None  # what the worker answers from: its names and versions
        self.restarts = 0
        self.errors: deque[tuple[float, str]] = deque(maxlen=KEPT_ERRORS)

    @property
    def models(self) -> list[Message]:
        """What can be asked for: name, version and digest, and ``aside`` with the reason where it may not answer."""
        return list((self._answering() | self._left_out.by_name(self._added)).values())

    @property
    def stacks(self) -> list[Message]:
        """Stacks that can be asked for: name, adapters with scales, reasoning."""
        aside = self._left_out.by_name(self._added)
        stacks: list[Message] = (self.bundle or {}).get("stacks", [])
        return [each for each in stacks if not any(part["name"] in aside for part in each["adapters"])]

    @property
    def names(self) -> set[str]:
        """What requests may name beside the base; those that may not answer are told why."""
        bundle = self.bundle or {}
        stacks = {each["name"] for each in bundle.get("stacks", ())}
        return {each["name"] for each in self.models} | stacks | set(bundle.get("incomplete_stacks", ()))

    @property
    def chooses(self) -> bool:
        """Whether requests for auto have an adapter chosen: the bundle has what it takes, and no model this name."""
        return (self.bundle or {}).get("auto") is not None and AUTO not in self.names

    @property
    def ready(self) -> bool:
        """Whether a worker can answer now."""
        return self._ready.is_set()

    @property
    def pid(self) -> int | None:
        """The worker's process."""
        return self._process.pid

    async def start(self) -> None:
        """Start the first worker.

        Raises:
            EdgekitError: what the runtime says against the bundle.
        """
        try:
            await self._start()
        except EdgekitError:
            await self._process.reap()
            raise
        self._keeper = asyncio.create_task(self._keep())
        await self._ready.wait()

    async def close(self) -> None:
        """End the worker."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        await self._process.reap()
        os.close(self._shared)

    async def answer(self, options: dict[str, Any], *, progress: bool = False) -> AsyncGenerator[Message, None]:
        """Events of an answer: "accepted", "text" …, "done".  Leaving early stops the generation.

        Args:
            options: arguments of Runtime.stream.
            progress: "progress" comes before the first text.

        Raises:
            InputError, UsageError: what is wrong with the request.
            SetAside: an adapter may not answer.
            Deadly: engines have died of this very request.
            Unavailable: the worker has died of it, or there is none.
        """
        key = await beside(request_key, options) if options.get("image") else request_key(options)
        self._check(options, key)
        if options.get("seed") is None:
            options = options | {"seed": secrets.randbits(32)}  # the same, should it have to be asked again
        message = {"op": "start", "options": options} | ({"progress": True} if progress else {})
        async with contextlib.aclosing(self._events(message, key)) as events:
            async for event in events:
                yield event

    async def embed(self, options: dict[str, Any]) -> AsyncGenerator[Message, None]:
        """The one event of vectors, "done".  Leaving early stops the reading.

        Args:
            options: arguments of Runtime.embedding_request.

        Raises:
            InputError, UsageError, SetAside, Deadly, Unavailable: as :meth:`answer`.
        """
        key = request_key(options)
        self._check(options, key)
        async with contextlib.aclosing(self._events({"op": "embed", "options": options}, key)) as events:
            async for event in events:
                yield event

    def _check(self, options: dict[str, Any], key: str) -> None:
        """Refuse what may not be asked."""
        if self._killers.refuses(key):
            raise Deadly("the engine has crashed over this request before", "change it; the service's log says more")
        names = self._names(options) | {options.get("adapter")}
        for name, model in self._left_out.by_name(self._added).items():
            if name in names:
                raise _set_aside(name, model[ASIDE])

    async def _events(self, message: Message, key: str) -> AsyncGenerator[Message, None]:
        """What the worker says to a request, until it is done."""
        request = self._request(message, key)
        try:
            await self._send(request)
            while True:
                event = await request.events.get()
                if isinstance(event, EdgekitError):
                    raise event
                if event["op"] == "error":
                    raise message_error(event)
                yield event
                if event["op"] == "done":
                    return
        finally:
            if self._requests.pop(request.number, None) is not None:
                self._process.write({"op": "cancel", "id": request.number})

    async def inspect(self, what: str, options: Message) -> Any:
        """What a method of Runtime.texts, or "count", gives for these arguments; raises as it does."""
        return await self._command({"op": "inspect", "what": what, "options": options})

    async def load(self, model: Message, path: str) -> None:
        """Load an adapter file, now and into every later worker; raises InputError when it is refused.

        Args:
            model: its name, version and digest.
            path: a file that stays as it is for as long as it is loaded.
        """
        name, digest = model["name"], model["digest"]
        self._blame.forgive(digest)
        await self._command(model | {"op": "load", "path": path})
        self._added[name] = model | {"op": "load", "path": path}
        self._removed.pop(name, None)
        self._left_out.reloaded(name, digest)

    async def unload(self, name: str) -> None:
        """Unload an adapter, now and from every later worker."""
        if name in self._left_out.by_name(self._added):  # no worker has it
            self._left_out.unloaded(name)
            return
        message = {"op": "unload", "name": name}
        await self._command(message)
        if self._added.pop(name, None) is None:
            self._removed[name] = message

    def leave_out(self, aside: Iterable[Message]) -> None:
        """Models of bundle or store that later workers may not answer with; each has the reason as ``aside``."""
        for digest in self._left_out.store(aside):
            self._blame.forgive(digest)

    async def refresh(self, generation: int, aside: Iterable[Message]) -> bool:
        """Have a generation of the store answer, without some of its adapters.

        Returns:
            False where it has another base or KV cache, which takes another worker.
        """
        aside = list(aside)
        message = {"op": "refresh", "generation": generation, "without": sorted(self._left_out.digests(aside))}
        same = await self._command(message)
        self._settings["generation"] = generation
        self.leave_out(aside)
        if same:
            self._removed.clear()
            return True
        self.kill("the store has another base, or the same with another KV cache")
        return False

    def give_up_all(self, why: str) -> None:
        """Whoever still waits is told so."""
        for request in list(self._requests.values()):
            self._fail(request, why)

    def kill(self, why: str) -> None:
        """End this worker at once; another one follows."""
        log.warning("ending the worker: %s", why)
        self._process.kill()

    async def _command(self, message: Message) -> Any:
        request = self._request(message)
        try:
            await self._send(request)
            event = await request.events.get()
        finally:
            self._requests.pop(request.number, None)
        if isinstance(event, EdgekitError):
            raise event
        if event["op"] == "error":
            raise message_error(event)
        return event["value"]

    def _request(self, message: Message, key: str = "") -> Request:
        self._count += 1
        request = Request(self._count, message | {"id": self._count}, key)
        self._requests[request.number] = request
        return request

    async def _send(self, request: Request) -> None:
        if self.ready:
            self._process.write(request.message)
            return
        try:  # the next worker is sent whatever waits
            await asyncio.wait_for(self._ready.wait(), READY_SECONDS)
        except TimeoutError:
            self._requests.pop(request.number, None)
            raise Unavailable("the engine is being restarted", "ask again in a moment") from None

    async def _start(self) -> None:
        self._at_work.clear()
        without = sorted(self._left_out.digests())
        await self._process.start(self._settings | {"without": without, "apart": self._apart})

    async def _keep(self) -> None:
        """Read what the worker says; when it ends, start the next one."""
        pause, there = 0.0, True
        while True:
            started, hangs = time.monotonic(), False
            try:
                if not there:
                    await self._start()
                self._resume()
                while True:
                    self._take(await self._process.read(timeout=self._hang_seconds))
            except TimeoutError:
                why = f"the engine gave no sign of life for {self._hang_seconds:g} s"
                self.kill(why)
                hangs = True
            except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, EdgekitError, OSError) as error:
                why = str(error) if isinstance(error, EdgekitError) else ""
            self._ready.clear()
            code = await self._process.reap()
            why = why or f"the engine's process ended with {ending(code)}"
            self.errors.append((time.time(), why))
            log.error("%s; starting it again", why)
            crashed = hangs or code not in (None, 0, *NOBODYS_FAULT)
            self._bury(why, self._at_work.crash(hung=hangs) if crashed else None)
            there = False
            self.restarts += 1
            steady = time.monotonic() - started > STEADY_SECONDS or self._answered
            asyncio.get_running_loop().call_later(READY_SECONDS, self._give_up, self.restarts)
            pause = 0.0 if steady else min(max(2 * pause, FIRST_PAUSE), LONGEST_PAUSE)
            await asyncio.sleep(pause)

    def _resume(self) -> None:
        """A new worker is there: give it the adapters of the last one, and the requests."""
        self._answered = False
        for message in [*self._added.values(), *self._removed.values()]:
            self._process.write(message | {"id": 0})
        for request in sorted(self._requests.values(), key=lambda each: each.deaths):  # what may kill it comes last
            request.begin_again()
            self._process.write(request.message)
        self._ready.set()

    def _bury(self, why: str, crash: Crash | None) -> None:
        """What the dead worker had is asked again, or given up.

        Args:
            why: it died.
            crash: what it did then; None where that was nobody's fault.
        """
        at_work, read = (crash.at_work, crash.read) if crash is not None else (set(), frozenset())
        self._apart = self._apart or bool(at_work)
        for digest in () if read else self._blame.crashed(at_work):
            self._set_aside(digest, f"the engine died of it twice ({why})")
        # The request ends with the second death of its adapter.
        blamed = not read and len(at_work) == 1 and all(len(stack) == 1 for stack in at_work)
        waiting = list(self._requests.values())
        counted = [each for each in waiting if (each.number in read if read else self._stack(each.message) in at_work)]
        counted = counted if counted or blamed else waiting
        if crash is not None and not blamed:
            for key in self._killers.died({each.key for each in counted if each.key}):
                log.error("request %s is refused from now on: engines have died of it (%s)", key, why)
        for request in counted:
            request.deaths += 1
            if request.deaths >= MOST_LIVES:
                self._fail(request, why)

    def _set_aside(self, digest: str, why: str) -> None:
        known = {name: model for name, model in self._answering().items() if model["digest"] == digest}
        names = list(known)
        log.error("adapter %s (sha256 %s) is set aside: %s", ", ".join(names) or "that was being loaded", digest, why)
        for request in [each for each in self._requests.values() if digest in self._stack(each.message)]:
            del self._requests[request.number]
            request.events.put_nowait(_set_aside(", ".join(names) or "that was sent", why))
        for name, model in known.items():
            self._left_out.add(model, why, loaded=self._added.pop(name, None) is not None)
        self.on_set_aside(digest, why)

    def _stack(self, message: Message) -> frozenset[str]:
        """Digests of the adapters that a request uses."""
        if "digest" in message:
            return frozenset([message["digest"]])
        names = self._names(message.get("options", {}))
        return frozenset(model["digest"] for name, model in self._answering().items() if name in names)

    def _names(self, options: Message) -> set[str]:
        """Adapters that a request asks for: of a stack, its parts."""
        lora, name = options.get("lora"), options.get("adapter")
        if lora is not None:
            return set(lora)
        stacks = {each["name"]: each["adapters"] for each in (self.bundle or {}).get("stacks", [])}
        if name in stacks and name not in self._added:
            return {part["name"] for part in stacks[name]}
        return {name} if name else set()

    def _answering(self) -> dict[str, Message]:
        """By name, what the worker has, or will have as soon as it has read what it was told at its start."""
        models = {model["name"]: model for model in self._running}
        for name, message in self._added.items():
            model = {key: message[key] for key in ("name", "version", "digest")}
            if not model.items() <= models.get(name, {}).items():
                models[name] = model
        return models

    def _give_up(self, restarts: int) -> None:
        """No worker has come in the place of one that died: nobody waits any longer."""
        if not self.ready and self.restarts == restarts:
            self.give_up_all("the engine is being restarted")

    def _fail(self, request: Request, why: str) -> None:
        del self._requests[request.number]
        request.events.put_nowait(Unavailable(why, "ask again in a moment"))

    def _take(self, message: Message) -> None:
        match message["op"]:
            case "beat":
                self.stats = message["stats"]
                return
            case "models":
                self._running, self.bundle = message["models"], message["bundle"]
                return
            case "error" if message["id"] == 0:  # an adapter of the last worker
                self.errors.append((time.time(), message["problem"]))
                return
        request = self._requests.get(message["id"])
        if request is None:
            return
        fresh: Message | None = message
        match message["op"]:
            case "accepted":
                if request.accepted:
                    return
                request.accepted = True
                if "route" in message:  # should it have to be asked again, the same adapter answers
                    options = request.message["options"] | {"adapter": message["route"]["adapter"]}
                    request.message = request.message | {"options": options}
            case "progress" if request.said or request.scored:  # of a prompt that is read again
                return
            case "text" | "done" if not request.goes_on(message):  # bits may differ, or an adapter is another one now
                self._process.write({"op": "cancel", "id": request.number})
                self._fail(request, "the engine was restarted, and answers otherwise than it began")
                return
            case "text":
                fresh = request.fresh(message)
            case "done" | "error":
                self._answered = True
                self._killers.answered(request.key)
                del self._requests[request.number]
                self._mix_again()
        if fresh is not None:
            request.events.put_nowait(fresh)

    def _mix_again(self) -> None:
        """Whatever may have killed the last worker has been answered."""
        if self._apart and not any(each.deaths for each in self._requests.values()):
            self._apart = False
            self._process.write({"op": "mix", "id": 0})


def _set_aside(name: str, why: str) -> SetAside:
    return SetAside(f"adapter {name} is set aside: {why}", "install or load it again")
