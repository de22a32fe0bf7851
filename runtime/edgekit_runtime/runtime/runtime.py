"""One bundle, loaded: answers many requests at once, each with the adapter of its choice."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Unpack

from edgekit_runtime.engines import Engine, Prompt, ReadyAdapter, Stack, forced_logits
from edgekit_runtime.engines.trial import Trial, run_trial
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.adapter import adapter_entry
from edgekit_runtime.formats.base_files import BaseFiles
from edgekit_runtime.formats.bundle import file_digest
from edgekit_runtime.formats.gguf import GgufFile
from edgekit_runtime.formats.images import Source
from edgekit_runtime.formats.manifest import AdapterEntry, Manifest
from edgekit_runtime.formats.route import Route
from edgekit_runtime.intake.adapters import recognize, take_in
from edgekit_runtime.intake.known_files import KnownFiles
from edgekit_runtime.prompts.chat import Message
from edgekit_runtime.runtime.asking import Asker
from edgekit_runtime.runtime.catalogue import Catalogue
from edgekit_runtime.runtime.embedding import EmbeddingReader, Embeddings, Text, listed
from edgekit_runtime.runtime.generation import Generation, Stream
from edgekit_runtime.runtime.loading import load
from edgekit_runtime.runtime.options import Options
from edgekit_runtime.runtime.texts import Texts
from edgekit_runtime.scheduler import (
    DEFAULT_CHAT_MEMORY,
    DEFAULT_PREFIX_MEMORY,
    AdapterPool,
    EmbeddingQueue,
    EmbeddingRequest,
    Lookahead,
    Loop,
    ParkedChats,
    Piece,
    PrefixCache,
    Request,
)
from edgekit_runtime.store import Store, is_store

CACHE_FOLDER = "cache"  # in a store
STEPS_PER_TEXT = 4  # of answers, for each of texts to embed: one of those takes as long as several tokens


class Runtime:
    """A loaded bundle.

    It may be called from several threads.  Whoever waits for a piece drives the loop for all; with ``parallel`` of 1
    requests are answered one after another.
    """

    def __init__(
        self,
        bundle: Path | str,
        *,
        threads: int | None = None,
        context: int | None = None,
        parallel: int = 1,
        kv_cache: str | None = None,
        lookahead: bool = True,
        exact: bool = True,
        adapter_memory: int | None = None,
        chat_memory: int = DEFAULT_CHAT_MEMORY,
        prefix_memory: int = DEFAULT_PREFIX_MEMORY,
        cache: Path | None = None,
        allow_special: bool = False,
        probe: bool = False,
        generation: int | None = None,
        without: Collection[str] = (),
    ) -> None:
        """Verify and load a bundle, and check that every adapter fits its base.

        Args:
            bundle: a bundle's folder or .tar, or a device store, whose adapters are checked when they are asked for.
            threads: for prefill and decode; the physical cores when None.
            context: tokens of prompt and answer together, for each request; the base's when None, but at most 4096, or
                2048 with more than one request at once.
            parallel: requests that are answered at once.
            kv_cache: type of the KV cache: "f16", or for 0.77 of its memory "q8_0-f16" (keys at Q8_0), for 0.53 "q8_0",
                for 0.28 "q4_0"; the bundle's when None.
            lookahead: decode guesses with each token where that pays and answers stay the same; with one request at
                a time.
            exact: an answer depends on nobody else, to the bit; without it, steps of several requests are quicker, and
                later turns of a chat begin sooner.
            adapter_memory: bytes that loaded adapters may take; None for no limit.
            chat_memory: bytes for the KV cache of conversations that wait for their next turn; 0 for none.
            prefix_memory: bytes for the KV cache of system prompts, and on disk again as many; 0 for none.
            cache: folder for the KV cache of system prompts; a store has its own.
            allow_special: control tokens that are spelt in messages (``<|im_end|>``) are some, not text.
            probe: run a base that is new here once in a process of its own before, as commands do: a file that makes
                the engine crash is refused then, where it would end this process.
            generation: of a store; what is active there when None.
            without: digests of adapters that are left out.

        Raises:
            InputError: the bundle doesn't verify, an adapter doesn't fit, the engine refuses a file or the KV cache.
            UsageError: a context, a KV cache, a number of threads or of requests that can't be had.
        """
        self._path = Path(bundle)
        self._lock = threading.Lock()  # of the engine
        self._coming: deque[Request] = deque()  # filled by any thread, as the next one is
        self._dropped: deque[Request] = deque()
        self._open = ExitStack()
        self._known = KnownFiles()
        try:
            self._loaded = load(
                self._path,
                self._open,
                threads=threads,
                context=context,
                parallel=parallel,
                kv_cache=kv_cache,
                exact=exact,
                probe=probe,
                generation=generation,
            )
            loaded = self._loaded
            self._bundle, self._engine = loaded.bundle, loaded.engine
            self._catalogue = Catalogue(self._bundle, without)
            self._asker = Asker(loaded, self._catalogue, allow_special=allow_special)
            folder = self._bundle.root / CACHE_FOLDER if cache is None and loaded.is_stored else cache
            tag = f"{self.manifest.base.digest} {self._engine.info()} {parallel > 1}"
            tag += "" if self._engine.exact else " inexact"  # such cells have other bits
            pool = AdapterPool(self._engine, limit=adapter_memory, ready=self._ready, check=self._known.check)
            self._open.callback(pool.close)
            self.loop = Loop(
                self._engine,
                pool,
                PrefixCache(prefix_memory, folder=folder, tag=tag),
                ParkedChats(chat_memory),
                Lookahead() if lookahead else None,
            )
            self._embedding_reader = EmbeddingReader(loaded, self.texts, self._catalogue)
            self._steps = 0
            self.embedding = EmbeddingQueue(self._engine, pool)
            self._open.callback(self.embedding.close)
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
    def manifest(self) -> Manifest:
        """The bundle's, with the adapters that answer now."""
        return self._catalogue.manifest

    @property
    def incomplete_stacks(self) -> list[str]:
        """Names of those that don't answer now, as an adapter of theirs was replaced or removed."""
        return self._catalogue.incomplete

    @property
    def texts(self) -> Texts:
        """The base's tokenizer and chat template; any thread may use them."""
        return self._asker.texts

    @property
    def engine(self) -> Engine:
        """The engine underneath, for measurements; not thread-safe."""
        return self._engine

    @property
    def header(self) -> GgufFile:
        """The header of the base's file; of an ONNX base, that of its vocabulary."""
        return self._loaded.header

    @property
    def engine_file(self) -> Path:
        """The base's file."""
        return self._bundle.base_path

    @property
    def base_files(self) -> BaseFiles:
        """All files of the base, and the KV cache that the engine has."""
        return self._loaded.base_files

    def adapter_path(self, name: str) -> Path:
        """An adapter's file; raises InputError for an unknown name."""
        return self._catalogue.path(name)

    def add_adapter(self, path: Path, name: str | None = None, digest: str | None = None) -> AdapterEntry:
        """Load an adapter file at run time, in the place of one of the same name; the base stays as it is.

        Args:
            path: the file, which has to stay as it is.
            name: another than its own.
            digest: the sha256 that it has to have.

        Raises:
            InputError: the file is not sound, another one, or not for this base; what was there stays.
        """
        base = self.manifest.base
        facts = take_in(path, self._loaded.header, family=base.family)
        found = file_digest(path)
        if digest not in (None, found):
            raise InputError(f"{path} has changed since it was checked", "load it again")
        digest = found
        entry = adapter_entry(facts, family=base.family, file=str(path.absolute()), digest=digest, name=name)
        with self._lock:
            files = {digest: path}
            if self.loop.pool.hold(files):  # the engine may still refuse it: before the old one goes
                self.loop.pool.release(files)
            self._catalogue.add(entry)
        return entry

    def remove_adapter(self, name: str) -> None:
        """Forget an adapter and free its memory; its file stays, and requests that use it go on.

        Raises:
            InputError: unknown adapter.
        """
        with self._lock:
            self.loop.pool.drop(self._catalogue.remove(name).digest)

    def refresh(self, generation: int | None = None, without: Collection[str] = ()) -> bool:
        """Read the store again: from now on what is active there answers.

        Args:
            generation: of the store; what is active there when None.
            without: digests of adapters that are left out.

        Returns:
            False when the store has another base, or the same with another KV cache, which takes a new runtime; nothing
            changes then.

        Raises:
            InputError: the store is damaged; nothing changes.
        """
        if not is_store(self._path):
            return True
        bundle = Store(self._path).bundle(generation)
        with self._lock:
            if not bundle.manifest.base.runs_as(self.manifest.base):
                return False
            self._bundle = bundle
            self._catalogue.follow(bundle, without)
        return True

    def generate(self, prompt: str | None = None, **options: Unpack[Options]) -> Generation:
        """Answer; see :meth:`stream` for the arguments."""
        stream = self.stream(prompt, **options)
        for _ in stream:
            pass
        assert stream.result is not None  # set by the stream's end
        return stream.result

    def stream(self, prompt: str | None = None, **options: Unpack[Options]) -> Stream:
        """Queue a request and answer piece by piece; whole characters only, and without calls of tools.

        Reading the prompt and the schema takes place here, beside what other threads do.

        Args:
            prompt: one user message.
            **options: see :class:`~edgekit_runtime.Options`.

        Raises:
            UsageError: arguments that make no sense together.
            InputError: unknown adapter, bad messages, a prompt that doesn't fit the context, or a request larger than
                :mod:`~edgekit_runtime.prompts.bounds` allows.
        """
        asked = self._asker.work(prompt, **options)
        request = self.loop.request(asked.work)
        self._coming.append(request)
        read = asked.reading, asked.thinking, asked.route
        return Stream(request, asked.adapter, self._pull, self._dropped.append, *read)

    def embed(
        self,
        texts: Text | Sequence[Text],
        adapter: str | None = None,
        *,
        lora: Mapping[str, float] | None = None,
        truncate: bool = False,
        dimensions: int | None = None,
    ) -> Embeddings:
        """Vectors of texts: the mean of the last hidden state over a text's tokens, of length 1.

        A text is read as it is, without chat template and system prompt.

        Args:
            texts: a text, or token ids, or several of either.
            adapter: see :meth:`stream`.
            lora: adapters with scales instead.
            truncate: leave out the end of a text that doesn't fit the context.
            dimensions: only so many first numbers of each vector, which get length 1 again.

        Raises:
            InputError: an empty text, an unknown adapter, a text that doesn't fit, or an engine without hidden states.
        """
        import numpy as np

        options: dict[str, Any] = {"adapter": adapter, "lora": lora, "truncate": truncate, "dimensions": dimensions}
        request, name = self.embedding_request(listed(texts), **options)
        try:
            while not request.done:
                self.step()
        finally:
            request.close()
        if request.error is not None:
            raise request.error
        return Embeddings(np.stack(request.vectors), tuple(map(len, request.texts)), name)

    def embedding_request(self, texts: Sequence[Text], **options: Any) -> tuple[EmbeddingRequest, str | None]:
        """Queue what :meth:`embed` does, for :meth:`step`; the request, and the adapter's name.

        Raises:
            InputError: as :meth:`embed`; what is found out later is the request's ``error``.
        """
        made = self._embedding_reader.request(texts, **options)
        self.embedding.add(made[0])
        return made

    def step(self) -> bool:
        """Go one step for all requests; False when there are none.  Streams do this when they have to wait."""
        with self._lock:
            while self._coming:
                self.loop.enqueue(self._coming.popleft())
            while self._dropped:
                self.loop.cancel(self._dropped.popleft())
            answering = self.loop.step()
            self._steps += 1
            if answering and self._steps % STEPS_PER_TEXT:
                return True
            return self.embedding.step() or answering

    def encode(
        self,
        messages: Sequence[Message],
        adapter: str | None = None,
        image: Source | Sequence[Source] | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
        template_arguments: Mapping[str, Any] | None = None,
    ) -> Prompt:
        """The prompt that the model sees for ``messages``, the adapter's system prompt included (see :meth:`stream`).

        Raises:
            InputError: unknown adapter, messages that the chat template refuses, or images that can't be used.
        """
        return self._asker.encode(messages, adapter, image, tools, template_arguments)

    def route(self, text: str) -> Route:
        """Which adapter a request for ``auto`` with this text gets; nothing is computed by the base.

        Raises:
            InputError: the bundle has no ``auto``, or its fallback doesn't answer.
            NobodyAnswers: the text is for none of the adapters, and the bundle refuses such.
        """
        return self._asker.router.route(text)

    def count_tokens(self, messages: Sequence[Message], **asked: Any) -> int:
        """How many tokens the prompt of a conversation has; it may have a few more than the context.

        Args:
            messages: the conversation.
            **asked: what of :class:`~edgekit_runtime.Options` changes the prompt: ``adapter``, ``lora``, ``image``,
                ``tools``, ``chat_template_kwargs``, ``reasoning_effort``, ``add_generation_prompt`` and
                ``continue_final_message``.

        Raises:
            InputError: unknown adapter, messages that the chat template refuses, images or tools that can't be used.
        """
        return self._asker.count(messages, **asked)

    def prompt_tokens(self, text: str) -> list[int]:
        """Token ids of a rendered prompt."""
        return self._asker.text(text)

    def piece(self, token: int) -> bytes:
        """The bytes that a token stands for."""
        return self._engine.piece(token)

    def logits(self, tokens: Sequence[int] | Prompt, adapter: str | None = None) -> Any:
        """Teacher-forced logits [len(tokens), vocabulary], float32, under ``adapter`` (see :meth:`stream`)."""
        with self._held(adapter) as stack:
            return forced_logits(self._engine, tokens, stack)

    def trial(self, prompt: Sequence[int] | Prompt, adapter: str | None = None, *, tokens: int) -> Trial:
        """Read a prompt under ``adapter`` and decode ``tokens`` after it, whether the answer would end or not.

        Raises:
            InputError: unknown adapter, or logits that are no numbers.
        """
        with self._held(adapter) as stack:
            return run_trial(self._engine, prompt, stack, tokens=tokens, who=adapter or "the default adapter")

    @contextmanager
    def _held(self, adapter: str | None) -> Iterator[Stack]:
        """The engine alone, with an adapter loaded."""
        stack, files = self._catalogue.stack(self._catalogue.name_of(adapter))
        with self._lock:
            if not self.loop.pool.hold(files):
                raise InputError("running requests leave no room for the adapter", "wait, or raise adapter_memory")
            try:
                yield stack
            finally:
                self.loop.pool.release(files)

    def _pull(self, request: Request) -> Piece | None:
        """The next piece of a request, None after the last; drives the loop until there is one."""
        while True:
            if request.pieces:
                return request.pieces.popleft()
            if request.error is not None:
                raise request.error
            if request.done:
                return None
            self.step()

    def _ready(self, digest: str, path: Path) -> ReadyAdapter:
        """What is loaded is what was taken in, and fits; any thread may ask."""
        self._known.check(path, digest)
        header = recognize(path, self._loaded.header, family=self.manifest.base.family)
        return self._engine.ready(path, header)
