"""One bundle, loaded: answers with any of its adapters, switching between them in well under a millisecond."""

from __future__ import annotations

import codecs
import secrets
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from edgekit_runtime.adapter import AdapterFacts, adapter_entry, check_fits
from edgekit_runtime.bundle import Bundle, file_digest, open_bundle
from edgekit_runtime.chat import ChatTemplate, Message, apply_system, check_messages
from edgekit_runtime.engines import BARE, DEFAULT_CONTEXT, Engine, Sampling, forced_logits, generate
from edgekit_runtime.errors import InputError, UsageError
from edgekit_runtime.gguf import GgufFile, read_gguf
from edgekit_runtime.machine import decode_threads
from edgekit_runtime.manifest import AdapterEntry, BaseEntry, Manifest
from edgekit_runtime.stopping import StopText
from edgekit_runtime.store import Store, is_store

BASE = "base"  # the adapter name that asks for the bare base
DEFAULT_MAX_TOKENS = 256


@dataclass(frozen=True)
class Usage:
    """Token counts."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


@dataclass(frozen=True)
class Timings:
    """Milliseconds, and tokens per second of prefill and decode; TTFT counts from the call to the first token."""

    switch_ms: float
    prefill_ms: float
    ttft_ms: float
    decode_ms: float
    prefill_tps: float
    decode_tps: float


@dataclass(frozen=True)
class Generation:
    """An answer; ``finish_reason`` is "stop" or "length", ``adapter`` None for the bare base."""

    text: str
    adapter: str | None
    finish_reason: str
    usage: Usage
    timings: Timings

    def as_dict(self) -> dict[str, Any]:
        """The JSON document."""
        return asdict(self)


class Stream(Iterator[str]):
    """Pieces of an answer as they come; ``result`` is there after the last one."""

    def __init__(self, pieces: Generator[str, None, Generation]) -> None:
        self._pieces = pieces
        self.result: Generation | None = None

    def __next__(self) -> str:
        try:
            return next(self._pieces)
        except StopIteration as end:
            if self.result is None:
                self.result = end.value
            raise StopIteration from None

    def close(self) -> None:
        """Stop generating."""
        self._pieces.close()


class Runtime:
    """A loaded bundle.  Calls from several threads are served one after another."""

    def __init__(self, bundle: Path | str, *, threads: int | None = None, context: int | None = None) -> None:
        """Verify and load a bundle, and check that every adapter fits its base.

        Args:
            bundle: a bundle's folder or .tar, or a device store.
            threads: for prefill and decode; the physical cores when None.
            context: tokens of prompt and answer together; the base's, at most 4096, when None.

        Raises:
            InputError: the bundle doesn't verify, an adapter doesn't fit, the engine refuses a file.
        """
        self._lock = threading.Lock()
        self._open = ExitStack()
        try:
            self._bundle = self._open.enter_context(_opened(bundle))
            self.manifest: Manifest = self._bundle.manifest
            self._check_kind()
            header = read_gguf(self._bundle.base_path)
            for entry in self.manifest.adapters:
                self._check_adapter(entry, header)
            self._template = _template(header)
            self._engine = self._load_engine(threads, context)
        except BaseException:
            self._open.close()
            raise

    def __enter__(self) -> Runtime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the engine; a tar's temporary folder goes too."""
        with self._lock:
            self._open.close()

    @property
    def engine(self) -> Engine:
        """The engine underneath, for measurements; not thread-safe."""
        return self._engine

    @property
    def engine_file(self) -> Path:
        """The base's file."""
        return self._bundle.base_path

    def adapter_path(self, name: str) -> Path:
        """An adapter's file; raises InputError for an unknown name."""
        return self._bundle.adapter_path(name)

    def add_adapter(self, path: Path, name: str | None = None) -> AdapterEntry:
        """Load an adapter file at run time, in the place of one of the same name; the base stays as it is.

        Raises:
            InputError: the file is not sound, or not for this base; what was there stays.
        """
        facts = AdapterFacts.read(path)
        base = self.manifest.base
        check_fits(facts, read_gguf(self._bundle.base_path), family=base.family)
        file = str(path.absolute())
        entry = adapter_entry(facts, family=base.family, file=file, digest=file_digest(path), name=name)
        trial = f"{entry.name}@{entry.digest}"
        with self._lock:
            self._engine.load_adapter(trial, path)  # the engine may still refuse it: before the old one goes
            self._engine.unload_adapter(trial)
            self._engine.unload_adapter(entry.name)
            others = (each for each in self.manifest.adapters if each.name != entry.name)
            self._adopt((*others, entry))
        return entry

    def remove_adapter(self, name: str) -> None:
        """Forget an adapter and free its memory; its file stays.

        Raises:
            InputError: unknown adapter.
        """
        with self._lock:
            entry = self.manifest.adapter(name)
            self._engine.unload_adapter(name)
            self._adopt(tuple(each for each in self.manifest.adapters if each is not entry))

    def _adopt(self, adapters: tuple[AdapterEntry, ...]) -> None:
        default = self.manifest.default_adapter
        kept = default if default in [entry.name for entry in adapters] else None
        self.manifest = replace(self.manifest, adapters=adapters, default_adapter=kept)
        self._bundle = replace(self._bundle, manifest=self.manifest)

    def generate(self, prompt: str | None = None, **options: Any) -> Generation:
        """Answer; see :meth:`stream` for the arguments."""
        stream = self.stream(prompt, **options)
        for _ in stream:
            pass
        assert stream.result is not None  # set by the stream's end
        return stream.result

    def stream(
        self,
        prompt: str | None = None,
        *,
        messages: Sequence[Message] | None = None,
        adapter: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        stop: Sequence[str] = (),
        schema: dict[str, Any] | None = None,
        image: Path | None = None,
    ) -> Stream:
        """Answer piece by piece; whole characters only.

        Args:
            prompt: one user message.
            messages: a whole conversation instead: ``[{"role": …, "content": …}]``.
            adapter: its name; "base" for the bare base; the bundle's default when None.
            max_tokens: where to cut the answer off; 256 unless the adapter says otherwise.
            temperature: 0 (greedy) unless the adapter says otherwise.
            top_k: sample from the k likeliest tokens only.
            top_p: sample from the likeliest tokens that have this probability together.
            seed: same seed, same answer; a fresh one when None.
            stop: texts that end the answer and are not part of it.
            schema: JSON schema that the answer has to follow.
            image: for caption bundles.

        Raises:
            UsageError: arguments that make no sense together.
            InputError: unknown adapter, bad messages, or a prompt that doesn't fit the context.
        """
        if image is not None:
            raise InputError(f"{self.manifest.name} is a text bundle", "send images to a caption bundle")
        if (prompt is None) == (messages is None):
            raise UsageError("a request needs either a prompt or messages", "give one of them")
        name = self._adapter_name(adapter)
        defaults = self._entry(adapter).generation or {}
        given = messages if messages is not None else [{"role": "user", "content": prompt}]
        tokens = self.encode(given, adapter)
        limit = int(_first(max_tokens, defaults.get("max_tokens"), DEFAULT_MAX_TOKENS))
        self._check_limits(len(tokens), limit)
        sampling = Sampling(
            temperature=float(_first(temperature, defaults.get("temperature"), 0.0)),
            top_k=int(_first(top_k, defaults.get("top_k"), Sampling.top_k)),
            top_p=float(_first(top_p, defaults.get("top_p"), Sampling.top_p)),
            seed=secrets.randbits(32) if seed is None else seed,
            grammar=None if schema is None else _grammar(schema),
        )
        return Stream(self._pieces(tokens, name, sampling, limit, tuple(stop)))

    def encode(self, messages: Sequence[Message], adapter: str | None = None) -> list[int]:
        """Token ids of the prompt that the model sees for ``messages``, the adapter's system prompt included.

        Raises:
            InputError: unknown adapter, or messages that the chat template refuses.
        """
        text = self._template.render(apply_system(check_messages(messages), self._entry(adapter).system))
        return self.prompt_tokens(text)

    def prompt_tokens(self, text: str) -> list[int]:
        """Token ids of a rendered prompt; BOS is not added twice when the template has written it."""
        tokens = self._engine.tokenize(text, add_special=True)
        plain = self._engine.tokenize(text, add_special=False)
        return plain if len(tokens) > len(plain) and plain[:1] == tokens[:1] else tokens

    def logits(self, tokens: Sequence[int], adapter: str | None = None) -> Any:
        """Teacher-forced logits [len(tokens), vocabulary], float32, under ``adapter`` (see :meth:`stream`)."""
        with self._lock:
            self._use(self._adapter_name(adapter))
            return forced_logits(self._engine, tokens)

    def _pieces(
        self, tokens: list[int], name: str | None, sampling: Sampling, limit: int, stop: tuple[str, ...]
    ) -> Generator[str, None, Generation]:
        clock = time.perf_counter
        with self._lock:
            start = clock()
            self._use(name)
            switched = clock()
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            stopper = StopText(stop)
            said: list[str] = []
            count, reason, first = 0, "length", 0.0
            generation = generate(self._engine, tokens, sampling)
            try:
                for token in generation:
                    first = first or clock()
                    if self._engine.is_end(token):
                        reason = "stop"
                        break
                    count += 1
                    piece = stopper.feed(decoder.decode(self._engine.piece(token)))
                    if piece:
                        said.append(piece)
                        yield piece
                    if stopper.stopped:
                        reason = "stop"
                        break
                    if count >= limit:
                        break
            finally:
                generation.close()  # type: ignore[attr-defined]  # engines' generate are generators
            end = clock()
            rest = stopper.finish(decoder.decode(b"", final=True))
            if rest:
                said.append(rest)
                yield rest
        steps = count if reason == "stop" and not stopper.stopped else count - 1  # decodes after the first token
        return Generation(
            text="".join(said),
            adapter=name,
            finish_reason=reason,
            usage=Usage(len(tokens), count, len(tokens) + count),
            timings=Timings(
                switch_ms=1e3 * (switched - start),
                prefill_ms=1e3 * (first - switched),
                ttft_ms=1e3 * (first - start),
                decode_ms=1e3 * (end - first),
                prefill_tps=len(tokens) / (first - switched),
                decode_tps=max(steps, 0) / (end - first) if end > first else 0.0,
            ),
        )

    def _use(self, name: str | None) -> None:
        if name is not None:
            self._engine.load_adapter(name, self._bundle.adapter_path(name))
        self._engine.select(BARE if name is None else ((name, 1.0),))

    def _adapter_name(self, adapter: str | None) -> str | None:
        name = self.manifest.default_adapter if adapter is None else adapter
        return None if name is None or name == BASE else self.manifest.adapter(name).name

    def _entry(self, adapter: str | None) -> AdapterEntry | BaseEntry:
        name = self._adapter_name(adapter)
        return self.manifest.adapter(name) if name else self.manifest.base

    def _check_kind(self) -> None:
        if self.manifest.engine != "llama.cpp" or self.manifest.task != "text":
            raise InputError(
                f"this runtime can't run {self.manifest.engine} bundles for {self.manifest.task}",
                "export with --format gguf for text, or update edgekit-runtime",
            )

    def _check_adapter(self, entry: AdapterEntry, header: GgufFile) -> None:
        if entry.family != self.manifest.base.family:
            raise InputError(
                f"adapter {entry.name} is for the base {entry.family}, and the bundle has {self.manifest.base.family}",
                "export it with its own base",
            )
        check_fits(AdapterFacts.read(self._bundle.root / entry.file), header, family=self.manifest.base.family)

    def _load_engine(self, threads: int | None, context: int | None) -> Engine:
        from edgekit_runtime.engines.llama_cpp import LlamaEngine

        longest = self.manifest.base.context
        if context is not None and not 0 < context <= longest:
            raise UsageError(f"a context of {context} tokens can't be had", f"ask for 1 to {longest}")
        engine = LlamaEngine(
            self._bundle.base_path,
            context=context or min(longest, DEFAULT_CONTEXT),
            threads=threads or decode_threads(),
        )
        self._open.callback(engine.close)
        return engine

    def _check_limits(self, prompt_tokens: int, max_tokens: int) -> None:
        if max_tokens < 1:
            raise UsageError(f"max_tokens {max_tokens} leaves no room for an answer", "ask for at least 1")
        if prompt_tokens + max_tokens > self._engine.context:
            raise InputError(
                f"the prompt's {prompt_tokens} tokens and {max_tokens} for the answer exceed the context of "
                f"{self._engine.context}",
                "shorten the prompt, lower max_tokens or ask for a larger context",
            )


def _opened(path: Path | str) -> AbstractContextManager[Bundle]:
    return nullcontext(Store(path).bundle()) if is_store(Path(path)) else open_bundle(path)


def _template(header: GgufFile) -> ChatTemplate:
    metadata = header.metadata
    source = metadata.get("tokenizer.chat_template")
    if not isinstance(source, str):
        raise InputError(f"{header.path} has no chat template", "export an instruct or chat model")
    tokens: list[str] = metadata.get("tokenizer.ggml.tokens", [])

    def special(kind: str) -> str:
        number = metadata.get(f"tokenizer.ggml.{kind}_token_id")
        return tokens[number] if isinstance(number, int) and number < len(tokens) else ""

    return ChatTemplate(source, special("bos"), special("eos"))


def _grammar(schema: dict[str, Any]) -> str:
    from edgekit_runtime.engines.llama_library import schema_grammar

    return schema_grammar(schema)


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)
