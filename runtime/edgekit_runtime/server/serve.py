"""Running the service until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from edgekit_runtime.errors import InputError, UsageError
from edgekit_runtime.formats.bundle import open_bundle
from edgekit_runtime.scheduler import DEFAULT_CHAT_MEMORY, DEFAULT_PREFIX_MEMORY
from edgekit_runtime.server.adapters import Adapters
from edgekit_runtime.server.app import DEFAULT_QUEUE, DEFAULT_TIMEOUT_S, make_app
from edgekit_runtime.server.copies import private_place
from edgekit_runtime.server.ending import ending_as_told, leave_within
from edgekit_runtime.server.images import ImageReader
from edgekit_runtime.server.metrics import Connections
from edgekit_runtime.server.origins import check_origin, is_loopback
from edgekit_runtime.server.supervisor import Supervisor
from edgekit_runtime.server.systemd import notify, tell_alive
from edgekit_runtime.store import Store, is_store

log = logging.getLogger(__name__)

DRAIN_SECONDS = 30  # what is being answered may end after SIGTERM
TELL_SECONDS = 5  # for telling those whose answers didn't
STOP_SECONDS = 40  # from SIGTERM to the end, whatever happens
SPARE_SECONDS = 2
DEFAULT_PARALLEL = 4


def serve(
    subject: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    api_key_file: Path | None = None,
    watch: Path | None = None,
    image_files: Path | None = None,
    adapter_files: Path | None = None,
    queue: int = DEFAULT_QUEUE,
    timeout: float = DEFAULT_TIMEOUT_S,
    threads: int | None = None,
    context: int | None = None,
    parallel: int = DEFAULT_PARALLEL,
    kv_cache: str | None = None,
    adapter_memory: int | None = None,
    chat_memory: int = DEFAULT_CHAT_MEMORY,
    prefix_memory: int = DEFAULT_PREFIX_MEMORY,
    lookahead: bool = True,
    exact: bool = True,
    allow_special: bool = False,
    cors: Sequence[str] = (),
) -> None:
    """Serve until SIGTERM or Ctrl-C; requests that are being answered end first.

    Args:
        subject: a bundle's folder or .tar, or a device store.
        host: address to listen on.
        port: TCP port; 0 for any that is free.
        api_key_file: a file with the key that clients have to send; needed for any address but loopback.
        watch: a folder; adapter files that are put there are live at once.
        adapter_files: a folder that adapters which are loaded over HTTP have to be in; None for any.
        image_files: a folder that file: URLs of images may point into; none may when None.
        queue: requests that may wait or run at once.
        timeout: seconds for an answer, waiting included.
        threads: as for :class:`~edgekit_runtime.Runtime`, as are the others.
        context: of each request.
        parallel: requests that are answered at once.
        kv_cache: its type; the bundle's when None.
        adapter_memory: bytes.
        chat_memory: bytes.
        prefix_memory: bytes.
        lookahead: decode tokens that are forced or likely several at a time.
        exact: an answer depends on nobody else, to the bit.
        allow_special: control tokens that are spelt in messages are some, not text.
        cors: sites whose pages may ask, as browsers name them: ``https://app.example``; ``*`` for all.

    Raises:
        UsageError: an address that others can reach, without a key, or one that can't be had.
        InputError: a bad bundle, or an empty or unreadable key file.
    """
    key = None if api_key_file is None else _read_key(api_key_file)
    if key is None and not is_loopback(host):
        raise UsageError(f"others can reach {host}, and there is no API key", "give --api-key-file, or use 127.0.0.1")
    origins = [check_origin(each) for each in cors]
    store = Store(subject) if is_store(subject) else None
    with contextlib.ExitStack() as held:
        held.enter_context(ending_as_told(STOP_SECONDS - SPARE_SECONDS))
        number = store.number if store else None
        bundle = store.bundle(number) if store else held.enter_context(open_bundle(subject))
        folder = held.enter_context(private_place(store))
        settings: dict[str, Any] = {
            "bundle": str(bundle.root),
            "generation": number,
            "threads": threads,
            "context": context,
            "parallel": parallel,
            "kv_cache": kv_cache,
            "adapter_memory": adapter_memory,
            "chat_memory": chat_memory,
            "prefix_memory": prefix_memory,
            "lookahead": lookahead,
            "exact": exact,
            "allow_special": allow_special,
            "probe": True,
        }
        listener = held.enter_context(_listen(host, port))

        async def run() -> None:
            supervisor = Supervisor(settings)
            adapters = Adapters(
                supervisor, bundle, folder=folder, store=store, number=number, watch=watch, files=adapter_files
            )
            try:
                await supervisor.start()
                images = ImageReader(task=bundle.manifest.task, files=image_files)
                counts = Connections()
                app = make_app(
                    supervisor,
                    adapters,
                    api_key=key,
                    queue=queue,
                    timeout=timeout,
                    images=images,
                    connections=counts,
                    cors=origins,
                )
                await _serve(app, supervisor, adapters, listener, counts)
            finally:
                await supervisor.close()

        asyncio.run(run())


async def _serve(
    app: Any, supervisor: Supervisor, adapters: Adapters, listener: socket.socket, counts: Connections
) -> None:
    import uvicorn

    from edgekit_runtime.server.connections import BACKLOG, BoundedConnection, most_connections

    BoundedConnection.most, BoundedConnection.counts = most_connections(), counts

    class Server(uvicorn.Server):
        """Signals are ours: the worker has to be ended too, and ending as told is no failure."""

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            for each in (signal.SIGTERM, signal.SIGINT):
                signal.signal(each, self.handle_exit)  # not the loop's: it may be what hangs
            yield

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            if not self.should_exit:
                leave_within(STOP_SECONDS - SPARE_SECONDS)
            super().handle_exit(sig, frame)

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            notify("READY=1")

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            notify("STOPPING=1")
            loop = asyncio.get_running_loop()
            late = [
                loop.call_later(DRAIN_SECONDS, supervisor.give_up_all, "the service is stopping"),
                loop.call_later(DRAIN_SECONDS, adapters.give_up_all),
            ]
            await super().shutdown(sockets)
            for each in late:
                each.cancel()

    server = Server(
        uvicorn.Config(
            app,
            http=BoundedConnection,
            backlog=BACKLOG,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=DRAIN_SECONDS + TELL_SECONDS,
            lifespan="off",
        )
    )
    beside = [asyncio.create_task(adapters.run()), asyncio.create_task(tell_alive())]
    host, port = listener.getsockname()[:2]
    log.info("serving on http://%s:%d", f"[{host}]" if ":" in host else host, port)
    try:
        await server.serve(sockets=[listener])
    finally:
        for task in beside:
            task.cancel()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise UsageError(f"can't listen on {host} port {port} ({error})", "choose another --host or --port") from None


def _read_key(path: Path) -> str:
    try:
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the key file {path} can't be read ({error})", "put one line of text in it") from None
    if not key:
        raise InputError(f"the key file {path} is empty", "put one line of text in it")
    return key
