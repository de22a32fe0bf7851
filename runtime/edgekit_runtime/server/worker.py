"""The process that holds the engine: ``python -m edgekit_runtime.server.worker SOCKET SETTINGS SHARED``.

Whatever kills it, the front lives on and starts another.  It ends when the front's end of the socket is closed.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import select
import signal
import socket
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgekit_runtime.errors import EdgekitError, TargetError
from edgekit_runtime.intake.child_limits import end_with_parent
from edgekit_runtime.machine import rss_mb
from edgekit_runtime.prompts.reasoning import trained_mode
from edgekit_runtime.runtime import Runtime
from edgekit_runtime.runtime.generation import Stream
from edgekit_runtime.scheduler import EmbeddingRequest, TokenScore
from edgekit_runtime.server.about import about
from edgekit_runtime.server.at_work import AtWork
from edgekit_runtime.server.preparing import Preparing, Watch, pictured
from edgekit_runtime.server.wire import BEAT_SECONDS, NO_MEMORY, Incoming, Message, error_message, pack

log = logging.getLogger(__name__)

READ_BYTES = 1 << 16
REPORT_SECONDS = 0.1
OOM_SCORE = "500"  # when memory runs out, the kernel takes the worker, not the front


class Worker:
    """Requests from a socket, through a runtime, and back."""

    def __init__(
        self,
        runtime: Runtime,
        connection: socket.socket,
        reading: Watch = contextlib.nullcontext,
    ) -> None:
        self._runtime, self._connection = runtime, connection
        self._streams: dict[int, Stream] = {}
        self._embeddings: dict[int, EmbeddingRequest] = {}
        self._preparing = Preparing(runtime.stream, reading)
        self._incoming = Incoming()
        self._unsent: list[bytes] = []
        self._begun: set[int] = set()  # streams whose first text has gone out
        self._followed: dict[int, int] = {}  # requests whose progress is told: tokens of the prompt, as told last
        self._last_beat = self._last_report = 0.0

    def run(self) -> None:
        """Serve until the front is gone."""
        self._say({"op": "ready"})
        self._tell_models()
        busy = False
        while self._receive(wait=0.0 if busy else BEAT_SECONDS):
            busy = self._runtime.step()
            self._report(time.monotonic())
            self._report_embeddings()
            if time.monotonic() - self._last_beat > BEAT_SECONDS:
                self._last_beat = time.monotonic()
                self._say({"op": "beat", "stats": self._stats()})
            if self._unsent:
                self._connection.sendall(b"".join(self._unsent))
                self._unsent.clear()

    def _receive(self, wait: float) -> bool:
        """Do what the front says; False when it is gone."""
        doors: list[socket.socket | Preparing] = [self._connection, self._preparing]
        while ready := select.select(doors, [], [], 0.0 if self._unsent else wait)[0]:
            if self._preparing in ready:
                self._take_prepared()
            wait = 0.0
            if self._connection not in ready:
                continue
            data = self._connection.recv(READ_BYTES)
            if not data:
                return False
            for message in self._incoming.feed(data):
                self._obey(message)
        return True

    def _take_prepared(self) -> None:
        for number, made in self._preparing.done():
            if isinstance(made, Stream):
                self._streams[number] = made
                thinking = None if made.thinking is None else asdict(made.thinking)
                calls = {} if made.reading is None else {"calls": made.reading.as_json()}
                accepted = {"op": "accepted", "id": number, "prompt_tokens": made.prompt_tokens, "thinking": thinking}
                route = {} if made.route is None else {"route": made.route.as_json()}
                self._say(accepted | calls | route)
            elif isinstance(made, EmbeddingRequest):
                self._embeddings[number] = made
            elif isinstance(made, Exception):
                self._followed.pop(number, None)
                self._refuse(number, made)
            else:
                self._say({"op": "done", "id": number, "value": made})

    def _refuse(self, number: int, error: Exception) -> None:
        """The request of one must not take the engine from all."""
        if isinstance(error, MemoryError):
            error = TargetError("there is no memory for this now", "send it again in a moment")
        elif not isinstance(error, EdgekitError):
            log.error("a request failed", exc_info=error)
            error = EdgekitError(f"a defect of the service ({error!r})", "see its log")
        self._say(error_message(number, error))

    def _obey(self, message: Message) -> None:
        number = message["id"]
        try:
            match message["op"]:
                case "start":
                    if message.get("progress"):
                        self._followed[number] = -1
                    self._preparing.start(number, message["options"])
                case "embed":
                    self._preparing.begin(number, lambda: self._runtime.embedding_request(**message["options"])[0])
                case "inspect":
                    self._preparing.call(number, lambda: self._inspect(message["what"], message["options"]))
                case "cancel":
                    self._preparing.cancel(number)
                    self._followed.pop(number, None)
                    if number in self._streams:
                        self._streams[number].close()
                        self._forget(number)
                    elif number in self._embeddings:
                        self._embeddings.pop(number).close()
                case "mix":
                    self._runtime.loop.mixing = True
                case "load":
                    entry = self._runtime.add_adapter(Path(message["path"]), message["name"], message["digest"])
                    self._done(number, {"name": entry.name, "version": entry.version, "digest": entry.digest})
                case "unload":
                    self._runtime.remove_adapter(message["name"])
                    self._done(number, None)
                case "refresh":
                    self._done(number, self._runtime.refresh(message["generation"], message["without"]))
        except Exception as error:
            self._refuse(number, error)

    def _inspect(self, what: str, options: Message) -> Any:
        texts = self._runtime.texts
        match what:
            case "tokenize":
                return texts.tokenize(**options)
            case "encode":
                return texts.encode(**options)
            case "render":
                return texts.render(**options)
            case "pieces":
                return [list(data) for data in texts.pieces(**options)]
            case "count":
                return self._runtime.count_tokens(**pictured(options))
            case "about":
                return about(self._runtime, **options)
            case _:
                return texts.facts()

    def _done(self, number: int, value: Any) -> None:
        self._tell_models()
        self._say({"op": "done", "id": number, "value": value})

    def _tell_models(self) -> None:
        manifest = self._runtime.manifest
        models = [
            {
                "name": each.name,
                "version": each.version,
                "digest": each.digest,
                "size": self._runtime.adapter_path(each.name).stat().st_size,
                "reasoning": trained_mode(each.template_arguments),
            }
            for each in manifest.adapters
        ]
        bundle = {
            "name": manifest.name,
            "version": manifest.version,
            "base": {
                "family": manifest.base.family,
                "architecture": manifest.base.architecture,
                "parameters": manifest.base.parameters,
                "quantization": manifest.base.quantization,
                "digest": manifest.base.digest,
                "size": self._runtime.base_files.size,
                "reasoning": trained_mode(manifest.base.template_arguments),
            },
            "default_adapter": manifest.default_adapter,
            "stacks": [
                {
                    "name": each.name,
                    "adapters": [{"name": part.name, "scale": part.scale} for part in each.adapters],
                    "reasoning": trained_mode(each.template_arguments),
                }
                for each in manifest.stacks
            ],
            "incomplete_stacks": self._runtime.incomplete_stacks,
            "auto": None if manifest.auto is None else manifest.auto["fallback"],
            "created": manifest.created,
            "context": self._runtime.engine.context,
        }
        self._say({"op": "models", "models": models, "bundle": bundle})

    def _report(self, now: float) -> None:
        """Pass on what has come since: the first text and the end at once, the rest at most so often.

        Each message wakes the front, which takes the time from the engine where all cores are in use.
        """
        due = now - self._last_report > REPORT_SECONDS
        if due:
            self._last_report = now
        for number, stream in list(self._streams.items()):
            if number in self._followed:
                self._tell_progress(number, stream)
            if not (due or stream.ended or number not in self._begun):
                continue
            try:
                pieces = stream.poll()
            except EdgekitError as error:
                self._forget(number)
                self._say(error_message(number, error))
                continue
            if pieces:
                echoed = {} if number in self._begun else {"echoed": self._scores(stream.echoed)}
                self._begun.add(number)
                text = "".join(piece.text for piece in pieces)
                scores = [score for piece in pieces for score in piece.scores]
                self._say({"op": "text", "id": number, "text": text, "scores": self._scores(scores)} | echoed)
            if stream.result is not None:
                self._forget(number)
                value = stream.result.as_dict() | {"echoed": self._scores(stream.echoed)}
                self._say({"op": "done", "id": number, "value": value})

    def _report_embeddings(self) -> None:
        for number, request in list(self._embeddings.items()):
            if not request.done:
                continue
            del self._embeddings[number]
            if request.error is not None:
                self._say(error_message(number, request.error))
                continue
            vectors = [base64.b64encode(each.astype("<f4").tobytes()).decode() for each in request.vectors]
            tokens = sum(map(len, request.texts))
            usage = {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens, "cached_tokens": 0}
            self._say({"op": "done", "id": number, "value": {"vectors": vectors, "usage": usage}})

    def _tell_progress(self, number: int, stream: Stream) -> None:
        """Tell how much of a prompt has been read, if that is more than before."""
        progress = stream.progress
        if progress is not None and progress.processed > self._followed[number]:
            self._followed[number] = progress.processed
            self._say({"op": "progress", "id": number} | progress._asdict())
        if stream.started:
            del self._followed[number]

    def _forget(self, number: int) -> None:
        del self._streams[number]
        self._begun.discard(number)
        self._followed.pop(number, None)

    def _scores(self, scores: Any) -> list[Any]:
        """Tokens as text and bytes: [[bytes, log-probability, [[bytes, log-probability] …]] …]."""

        def spell(token: int) -> list[int]:
            return list(self._runtime.piece(token))

        def one(score: TokenScore) -> list[Any]:
            return [spell(score.token), score.logprob, [[spell(token), logprob] for token, logprob in score.top]]

        return [one(score) for score in scores]

    def _stats(self) -> dict[str, Any]:
        loop = self._runtime.loop
        return vars(loop.counts) | {
            "running": loop.running,
            "waiting": loop.waiting,
            "kv_tokens": loop.held_tokens,
            "kv_capacity": self._runtime.engine.context * self._runtime.engine.sequences,
            "adapters_loaded": len(loop.pool),
            "adapter_bytes": loop.pool.size,
            "adapter_loads": loop.pool.loads,
            "adapter_evictions": loop.pool.evictions,
            "embedded_tokens": self._runtime.embedding.tokens,
            "prefix_bytes": loop.prefixes.size,
            "parked_bytes": loop.parked.size,
            "rss_mb": rss_mb(),
        }

    def _say(self, message: Message) -> None:
        self._unsent.append(pack(message))


def main(arguments: list[str]) -> int:
    """Run; the arguments are the socket's number, the runtime's arguments as JSON, and the number of a shared file."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the front's to handle
    connection = socket.socket(fileno=int(arguments[0]))
    settings = json.loads(arguments[1])
    at_work = AtWork(int(arguments[2]))
    at_work.note_crashes()
    apart = settings.pop("apart")
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE)
    try:
        with Runtime(settings.pop("bundle"), **settings) as runtime:
            runtime.loop.watch = runtime.loop.pool.watch = runtime.embedding.watch = at_work.mark
            runtime.loop.mixing = not apart
            Worker(runtime, connection, at_work.reading).run()
    except EdgekitError as error:
        connection.sendall(pack(error_message(0, error)))
        return error.exit_code
    except (BrokenPipeError, ConnectionResetError):
        pass
    except MemoryError:
        return NO_MEMORY
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
