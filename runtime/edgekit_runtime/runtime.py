"""One bundle, loaded: answers many requests at once, each with the adapter of its choice."""

from __future__ import annotations

import secrets
import threading
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from edgekit_runtime.adapter import adapter_entry
from edgekit_runtime.base_files import BaseFiles
from edgekit_runtime.base_header import check_base_header
from edgekit_runtime.bounds import check_adapters, check_schema, check_stops
from edgekit_runtime.bundle import Bundle, file_digest, open_bundle
from edgekit_runtime.chat import Asking, Message
from edgekit_runtime.engines import (
    DEFAULT_CONTEXT,
    SHARED_CONTEXT,
    Engine,
    Images,
    Layout,
    Prompt,
    Sampling,
    Stack,
    forced_logits,
)
from edgekit_runtime.engines.trial import Trial, run_trial
from edgekit_runtime.errors import InputError, UsageError
from edgekit_runtime.generation import Generation, Stream
from edgekit_runtime.gguf import read_gguf
from edgekit_runtime.intake import recognise, take_in, take_in_bundle
from edgekit_runtime.machine import MOST_PARALLEL, MOST_THREADS, decode_threads
from edgekit_runtime.manifest import AdapterEntry, BaseEntry, Manifest
from edgekit_runtime.pictures import Source, listed, read_pictures
from edgekit_runtime.probed import FOLDER as PROBED
from edgekit_runtime.probed import Probed, user_folder
from edgekit_runtime.prompts import Prompts
from edgekit_runtime.scheduler import AdapterPool, Job, Loop, Piece, PrefixCache, Work
from edgekit_runtime.store import Store, is_store
from edgekit_runtime.tokenising import BoundedTokeniser

BASE = "base"  # the adapter name that asks for the bare base
DEFAULT_MAX_TOKENS = 256
LARGEST_SCALE = 2.0
CACHE_FOLDER = "cache"  # in a store


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
        adapter_memory: int | None = None,
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
            adapter_memory: bytes that loaded adapters may take; None for no limit.
            cache: folder for the KV cache of system prompts; a store has its own.
            allow_special: control tokens that are spelt in messages (``<|im_end|>``) are some, not text.
            probe: run a base that is new here once in a process of its own before, as commands do: a file that makes
                the engine crash is refused then, where it would end this process.
            generation: of a store; what is active there when None.
            without: digests of adapters that are left out.

        Raises:
            InputError: the bundle doesn't verify, an adapter doesn't fit, the engine refuses a file.
            UsageError: a context, a number of threads or of requests that can't be had.
        """
        self.manifest: Manifest
        self._path = Path(bundle)
        self._added: dict[str, AdapterEntry] = {}  # at run time
        self._removed: set[str] = set()  # likewise, of what the bundle has
        self._without = frozenset(without)
        self._lock = threading.Lock()  # of the engine
        self._laying_out = threading.Lock()  # images
        self._coming: deque[Job] = deque()  # filled by any thread, as the next one is
        self._dropped: deque[Job] = deque()
        self._open = ExitStack()
        try:
            self._bundle = self._open.enter_context(_opened(bundle, generation))
            self._adopt(self._bundle.manifest)
            self._header = read_gguf(self._bundle.base_files.header)
            stored = is_store(self._path)
            if stored:
                check_base_header(self._header)
            else:
                take_in_bundle(self._bundle, self._header)
            if probe:
                noted = Probed(self._bundle.root / PROBED if stored else user_folder())
                noted.ensure(self.manifest.base, self._bundle.base_files)
            self._engine = self._load_engine(threads, context, parallel)
            self._images = self._load_images()
            self._prompts = Prompts(
                self._header,
                BoundedTokeniser(self._engine, self._header),
                with_images=self._images is not None,
                allow_special=allow_special,
            )
            folder = self._bundle.root / CACHE_FOLDER if cache is None and stored else cache
            tag = f"{self.manifest.base.digest} {self._engine.info()} {parallel > 1}"
            pool = AdapterPool(self._engine, limit=adapter_memory, check=self._check_file)
            self.loop = Loop(self._engine, pool, PrefixCache(folder=folder, tag=tag))
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

    @property
    def base_files(self) -> BaseFiles:
        """All files of the base."""
        return self._bundle.base_files

    def adapter_path(self, name: str) -> Path:
        """An adapter's file; raises InputError for an unknown name."""
        return self._bundle.root / self.manifest.adapter(name).file

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
        facts = take_in(path, self._header, family=base.family)
        found = file_digest(path)
        if digest not in (None, found):
            raise InputError(f"{path} has changed since it was checked", "load it again")
        digest = found
        entry = adapter_entry(facts, family=base.family, file=str(path.absolute()), digest=digest, name=name)
        with self._lock:
            files = {digest: path}
            if self.loop.pool.hold(files):  # the engine may still refuse it: before the old one goes
                self.loop.pool.release(files)
            self._without -= {digest}
            self._added[entry.name] = entry
            self._removed.discard(entry.name)
            self._adopt(self._bundle.manifest)
        return entry

    def remove_adapter(self, name: str) -> None:
        """Forget an adapter and free its memory; its file stays, and requests that use it go on.

        Raises:
            InputError: unknown adapter.
        """
        with self._lock:
            entry = self.manifest.adapter(name)
            if self._added.pop(name, None) is None:
                self._removed.add(name)
            self._adopt(self._bundle.manifest)
            self.loop.pool.drop(entry.digest)

    def refresh(self, generation: int | None = None, without: Collection[str] = ()) -> bool:
        """Read the store again: from now on what is active there answers.

        Args:
            generation: of the store; what is active there when None.
            without: digests of adapters that are left out.

        Returns:
            False when the store has another base, which takes a new runtime; nothing changes then.

        Raises:
            InputError: the store is damaged; nothing changes.
        """
        if not is_store(self._path):
            return True
        bundle = Store(self._path).bundle(generation)
        with self._lock:
            if bundle.manifest.base.digest != self.manifest.base.digest:
                return False
            self._bundle, self._without = bundle, frozenset(without)
            self._removed.clear()
            self._adopt(bundle.manifest)
        return True

    def _adopt(self, manifest: Manifest) -> None:
        """Answer with the adapters of a manifest, and with what was added and removed at run time."""
        adapters = {entry.name: entry for entry in manifest.adapters if entry.name not in self._removed} | self._added
        adapters = {name: entry for name, entry in adapters.items() if entry.digest not in self._without}
        kept = manifest.default_adapter if manifest.default_adapter in adapters else None
        self.manifest = replace(manifest, adapters=tuple(adapters.values()), default_adapter=kept)

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
        raw: str | Sequence[int] | None = None,
        adapter: str | None = None,
        lora: Mapping[str, float] | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        stop: Sequence[str] = (),
        schema: dict[str, Any] | None = None,
        logprobs: int | None = None,
        echo: bool = False,
        image: Source | Sequence[Source] | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
        template_arguments: Mapping[str, Any] | None = None,
    ) -> Stream:
        """Queue a request and answer piece by piece; whole characters only.

        Reading the prompt and the schema takes place here, beside what other threads do.

        Args:
            prompt: one user message.
            messages: a whole conversation instead: ``[{"role": …, "content": …}]``, where the content may be a list of
                ``{"type": "text", "text": …}`` and ``{"type": "image"}``.
            raw: a text or token ids to continue as they are instead, without template or system prompt; control tokens
                that are spelt in the text are some.
            adapter: its name; "base" for the bare base; the bundle's default when None.  Its system prompt and its
                defaults apply.
            lora: adapters to apply together, with a scale of 0 to 2 each; the adapter alone, at 1, when None.
            max_tokens: where to cut the answer off; 256 unless the adapter says otherwise.
            temperature: 0 (greedy) unless the adapter says otherwise.
            top_k: sample from the k likeliest tokens only.
            top_p: sample from the likeliest tokens that have this probability together.
            seed: same seed, same answer; a fresh one when None.
            stop: texts that end the answer and are not part of it.
            schema: JSON schema that the answer has to follow.
            logprobs: log-probabilities of tokens are wanted, and of how many likeliest ones besides.
            echo: those of the prompt too.
            image: for caption bundles: a file, its bytes or a :class:`~edgekit_runtime.pictures.Picture`, or several,
                in the order of their places in ``messages``; without places they come before the last question.
            tools: descriptions of functions that the model may call, for the chat template.
            template_arguments: variables that the chat template gets, ``{"enable_thinking": False}`` say; the
                adapter's when None.

        Raises:
            UsageError: arguments that make no sense together.
            InputError: unknown adapter, bad messages, a prompt that doesn't fit the context, or a request larger than
                :mod:`~edgekit_runtime.bounds` allows.
        """
        if sum(each is not None for each in (prompt, messages, raw)) != 1:
            raise UsageError("a request needs either a prompt or messages or raw text", "give one of them")
        check_stops(stop)
        check_adapters(len(lora or ()))
        if schema is not None:
            check_schema(schema)
        name = self._adapter_name(adapter)
        entry = self._entry(adapter)
        defaults = entry.generation or {}
        if listed(image) and (raw is not None or echo):
            raise UsageError("a raw prompt or an echo can't have images", "send messages")
        asking = _asking(entry, tools, template_arguments)
        asked, preamble = self._prompt(prompt, messages, raw, asking, self._layouts(image))
        tokens = asked.tokens
        limit = int(_first(max_tokens, defaults.get("max_tokens"), DEFAULT_MAX_TOKENS))
        self._check_limits(tokens, limit, echo=echo)
        stack, files = self._stack(name, lora)
        work = Work(
            prompt=tokens,
            stack=stack,
            files=files,
            sampling=Sampling(
                temperature=float(_first(temperature, defaults.get("temperature"), 0.0)),
                top_k=int(_first(top_k, defaults.get("top_k"), Sampling.top_k)),
                top_p=float(_first(top_p, defaults.get("top_p"), Sampling.top_p)),
                seed=secrets.randbits(32) if seed is None else seed,
                grammar=None if schema is None else _grammar(schema),
            ),
            max_tokens=limit,
            stop=tuple(stop),
            preamble=preamble,
            alternatives=logprobs,
            echo=echo,
            frames=asked.frames,
        )
        job = self.loop.job(work)
        self._coming.append(job)
        return Stream(job, name, self._pull, self._dropped.append)

    def step(self) -> bool:
        """Go one step for all requests; False when there are none.  Streams do this when they have to wait."""
        with self._lock:
            while self._coming:
                self.loop.enqueue(self._coming.popleft())
            while self._dropped:
                self.loop.cancel(self._dropped.popleft())
            return self.loop.step()

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
        asking = _asking(self._entry(adapter), tools, template_arguments)
        return self._prompts.chat(messages, asking, self._layouts(image))

    def prompt_tokens(self, text: str) -> list[int]:
        """Token ids of a rendered prompt."""
        return self._prompts.text(text)

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
        stack, files = self._stack(self._adapter_name(adapter), None)
        with self._lock:
            if not self.loop.pool.hold(files):
                raise InputError("running requests leave no room for the adapter", "wait, or raise adapter_memory")
            try:
                yield stack
            finally:
                self.loop.pool.release(files)

    def _pull(self, job: Job) -> Piece | None:
        """The next piece of a request, None after the last; drives the loop until there is one."""
        while True:
            if job.pieces:
                return job.pieces.popleft()
            if job.error is not None:
                raise job.error
            if job.done:
                return None
            self.step()

    def _prompt(
        self,
        prompt: str | None,
        messages: Sequence[Message] | None,
        raw: str | Sequence[int] | None,
        asking: Asking,
        images: Sequence[Layout],
    ) -> tuple[Prompt, int]:
        """The prompt, and how many of its tokens are the preamble."""
        if raw is None:
            given = messages if messages is not None else [{"role": "user", "content": prompt}]
            asked = self._prompts.chat(given, asking, images)
            return asked, self._prompts.preamble(asked.tokens, asking)
        if isinstance(raw, str):
            return Prompt(self._prompts.text(raw)), 0
        known = len(self._header.metadata.get("tokenizer.ggml.tokens", ()))
        if not all(0 <= token < known for token in raw):
            raise InputError("the prompt has token ids that the base doesn't know", f"use ids from 0 to {known - 1}")
        return Prompt(list(raw)), 0

    def _layouts(self, image: Source | Sequence[Source] | None) -> list[Layout]:
        """Images as the base sees them."""
        sources = listed(image)
        if not sources:
            return []
        if self._images is None:
            raise InputError(f"{self.manifest.name} is a text bundle", "send images to a caption bundle")
        pictures = read_pictures(sources)
        with self._laying_out:
            return [self._images.layout(picture) for picture in pictures]

    def _stack(self, name: str | None, lora: Mapping[str, float] | None) -> tuple[Stack, dict[str, Path]]:
        """The adapters to apply, by digest, and their files."""
        wanted = lora if lora is not None else {} if name is None else {name: 1.0}
        for each, scale in wanted.items():
            if not 0 <= scale <= LARGEST_SCALE:
                raise InputError(f"adapter {each} can't have a scale of {scale:g}", f"use 0 to {LARGEST_SCALE:g}")
        scales: dict[str, float] = {}
        files: dict[str, Path] = {}
        for each, scale in wanted.items():
            entry = self.manifest.adapter(each)
            if scale:
                scales[entry.digest] = scales.get(entry.digest, 0.0) + float(scale)
                files[entry.digest] = self.adapter_path(each)
        return tuple(sorted(scales.items())), files

    def _adapter_name(self, adapter: str | None) -> str | None:
        name = self.manifest.default_adapter if adapter is None else adapter
        return None if name is None or name == BASE else self.manifest.adapter(name).name

    def _entry(self, adapter: str | None) -> AdapterEntry | BaseEntry:
        name = self._adapter_name(adapter)
        return self.manifest.adapter(name) if name else self.manifest.base

    def _check_file(self, digest: str, path: Path) -> None:
        """What is loaded is what was taken in, and fits."""
        recognise(path, digest, self._header, family=self.manifest.base.family)

    def _load_engine(self, threads: int | None, context: int | None, parallel: int) -> Engine:
        from edgekit_runtime.engines.opening import open_engine

        longest = self.manifest.base.context
        if context is not None and not 0 < context <= longest:
            raise UsageError(f"a context of {context} tokens can't be had", f"ask for 1 to {longest}")
        if not 0 < parallel <= MOST_PARALLEL:
            raise UsageError(f"{parallel} requests at once can't be had", f"ask for 1 to {MOST_PARALLEL}")
        if threads is not None and not 0 < threads <= MOST_THREADS:
            raise UsageError(f"{threads} threads can't be had", f"ask for 1 to {MOST_THREADS}")
        engine = open_engine(
            self._bundle.base_files,
            context=context or min(longest, DEFAULT_CONTEXT if parallel == 1 else SHARED_CONTEXT),
            threads=threads or decode_threads(),
            sequences=parallel,
        )
        self._open.callback(engine.close)
        return engine

    def _load_images(self) -> Images | None:
        projector = self._bundle.projector_path
        if projector is None:
            return None
        from edgekit_runtime.engines.llama_cpp import LlamaEngine

        if not isinstance(self._engine, LlamaEngine):
            raise InputError(f"{self.manifest.engine} reads no images here", "export with --format gguf")
        images = self._engine.images(projector)
        self._open.callback(images.close)
        return images

    def _check_limits(self, tokens: Sequence[int], max_tokens: int, *, echo: bool) -> None:
        if not tokens:
            raise InputError("the prompt is empty", "say something")
        if max_tokens < 0 or (max_tokens == 0 and not echo):
            raise UsageError(f"max_tokens {max_tokens} leaves no room for an answer", "ask for at least 1")
        if len(tokens) + max_tokens > self._engine.context:
            raise InputError(
                f"the prompt's {len(tokens)} tokens and {max_tokens} for the answer exceed the context of "
                f"{self._engine.context}",
                "shorten the prompt, lower max_tokens or ask for a larger context",
            )


def _opened(path: Path | str, generation: int | None) -> AbstractContextManager[Bundle]:
    return nullcontext(Store(path).bundle(generation)) if is_store(Path(path)) else open_bundle(path)


def _asking(
    entry: AdapterEntry | BaseEntry, tools: Sequence[Mapping[str, Any]], arguments: Mapping[str, Any] | None
) -> Asking:
    return Asking(entry.system, entry.template_arguments if arguments is None else arguments, tools)


def _grammar(schema: dict[str, Any]) -> str:
    from edgekit_runtime.engines.llama_library import schema_grammar

    return schema_grammar(schema)


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)
