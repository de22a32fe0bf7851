"""From what a caller asks to work for the engine's loop."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, TypedDict

from edgekit_runtime.constraints import compiled
from edgekit_runtime.engines import Layout, Prompt, Sampling
from edgekit_runtime.errors import InputError, UsageError
from edgekit_runtime.formats.images import Source, listed, read_pictures
from edgekit_runtime.formats.manifest import AdapterEntry, BaseEntry
from edgekit_runtime.prompts.bounds import check_adapters, check_form, check_schema, check_stops
from edgekit_runtime.prompts.chat import Asking, Message
from edgekit_runtime.prompts.reasoning import tags_of
from edgekit_runtime.prompts.rendering import Prompts
from edgekit_runtime.prompts.tokenizing import BoundedTokenizer
from edgekit_runtime.prompts.tool_grammar import NONE
from edgekit_runtime.runtime import calling
from edgekit_runtime.runtime.calling import Choice
from edgekit_runtime.runtime.catalogue import Catalogue
from edgekit_runtime.runtime.loading import Loaded
from edgekit_runtime.scheduler import Work

DEFAULT_MAX_TOKENS = 256


class Options(TypedDict, total=False):
    """What a request may say besides the prompt.

    Attributes:
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
        regex: regular expression, of Rust's kind, that the whole answer has to match.
        grammar: GBNF or Lark that the answer has to follow.
        choice: texts, one of which is the answer.
        logprobs: log-probabilities of tokens are wanted, and of how many likeliest ones besides.
        echo: those of the prompt too.
        image: for caption bundles: a file, its bytes or a :class:`~edgekit_runtime.formats.images.Picture`, or
            several, in the order of their places in ``messages``; without places they come before the last
            question.
        tools: descriptions of functions that the model may call, as OpenAI's clients send them.
        tool_choice: ``auto`` (the default: the model decides), ``none`` (no call can come), ``required`` (one has to),
            or ``{"type": "function", "function": {"name": …}}`` (a call of this one).  Arguments are held to the
            functions' parameters.  ``text`` holds nothing and leaves calls in the text, as the model writes them.
        parallel_tool_calls: False for one call at most.
        template_arguments: variables that the chat template gets, ``{"enable_thinking": False}`` say; the
            adapter's when None.
    """

    messages: Sequence[Message] | None
    raw: str | Sequence[int] | None
    adapter: str | None
    lora: Mapping[str, float] | None
    max_tokens: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    seed: int | None
    stop: Sequence[str]
    schema: dict[str, Any] | bool | None
    regex: str | None
    grammar: str | None
    choice: Sequence[str] | None
    logprobs: int | None
    echo: bool
    image: Source | Sequence[Source] | None
    tools: Sequence[Mapping[str, Any]]
    tool_choice: Choice | None
    parallel_tool_calls: bool | None
    template_arguments: Mapping[str, Any] | None


class Asked(NamedTuple):
    """A request that has been read.

    Attributes:
        work: for the loop.
        adapter: that does it; None for the bare base.
        reading: how calls are read from its answer, where some may come.
    """

    work: Work
    adapter: str | None
    reading: calling.Reading | None


class Asker:
    """Reads requests: prompt, images, schema and defaults of the adapter.  Several threads may do so at once."""

    def __init__(self, loaded: Loaded, catalogue: Catalogue, *, allow_special: bool) -> None:
        """``allow_special``: control tokens that are spelt in messages are some, not text."""
        self._loaded, self._catalogue = loaded, catalogue
        self._laying_out = threading.Lock()
        self._prompts = Prompts(
            loaded.header,
            BoundedTokenizer(loaded.engine, loaded.header),
            with_images=loaded.images is not None,
            allow_special=allow_special,
        )

    def work(
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
        schema: dict[str, Any] | bool | None = None,
        regex: str | None = None,
        grammar: str | None = None,
        choice: Sequence[str] | None = None,
        logprobs: int | None = None,
        echo: bool = False,
        image: Source | Sequence[Source] | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
        tool_choice: Choice | None = None,
        parallel_tool_calls: bool | None = None,
        template_arguments: Mapping[str, Any] | None = None,
    ) -> Asked:
        """Read a request.

        Raises:
            UsageError: arguments that make no sense together.
            InputError: unknown adapter, bad messages, a prompt that doesn't fit the context, a schema or the like that
                answers can't be held to, or a request larger than :mod:`~edgekit_runtime.prompts.bounds` allows.
        """
        if sum(each is not None for each in (prompt, messages, raw)) != 1:
            raise UsageError("a request needs either a prompt or messages or raw text", "give one of them")
        check_stops(stop)
        check_adapters(len(lora or ()))
        if schema is not None:
            check_schema(schema)
        for form, texts in (("regex", [regex]), ("grammar", [grammar]), ("choice", choice or [])):
            check_form(form, *(text for text in texts if text is not None))
        name, entry = self._catalogue.name_of(adapter), self._catalogue.entry_of(adapter)
        defaults = entry.generation or {}
        if listed(image) and (raw is not None or echo):
            raise UsageError("a raw prompt or an echo can't have images", "send messages")
        asking = _asking(entry, tools, template_arguments)
        called = calling.Asked.of(tools, tool_choice, parallel_tool_calls)
        if raw is not None and tools:
            raise UsageError("a raw prompt has no tools", "send messages, or leave them out")
        asked, preamble, end = self._prompt(prompt, messages, raw, asking, self._layouts(image))
        limit = int(_first(max_tokens, defaults.get("max_tokens"), DEFAULT_MAX_TOKENS))
        self._check_limits(asked.tokens, limit, echo=echo)
        stack, files = self._catalogue.stack(name, lora)
        grammar, reading = self._held(called, end, schema=schema, regex=regex, grammar=grammar, choice=choice)
        work = Work(
            prompt=asked.tokens,
            stack=stack,
            files=files,
            sampling=Sampling(
                temperature=float(_first(temperature, defaults.get("temperature"), 0.0)),
                top_k=int(_first(top_k, defaults.get("top_k"), Sampling.top_k)),
                top_p=float(_first(top_p, defaults.get("top_p"), Sampling.top_p)),
                seed=secrets.randbits(32) if seed is None else seed,
                grammar=grammar,
            ),
            max_tokens=limit,
            stop=tuple(stop),
            preamble=preamble,
            alternatives=logprobs,
            echo=echo,
            frames=asked.frames,
            shown={token: text.encode() for text, token in self._controls.items()} if tools else {},
        )
        return Asked(work, name, reading)

    def _held(self, called: calling.Asked | None, end: str, **forms: Any) -> tuple[str | None, calling.Reading | None]:
        """What the answer is held to, and how calls are read from it."""
        others = [name for name, each in forms.items() if each is not None and name != "schema"]
        if called is None or (called.choice == NONE and (others or forms["schema"] is not None)):
            return compiled(**forms), None
        if others:
            raise UsageError(f"an answer can't follow {others[0]} and call tools", "send a schema, or tool_choice none")
        return called.grammar(self._prompts.template, self._prompts.calls, end, self._controls, forms["schema"])

    @cached_property
    def _controls(self) -> dict[str, int]:
        """Control tokens around calls and reasoning."""
        texts = [*self._prompts.calls.literals, *tags_of(self._prompts.template)]
        spelt = self._loaded.header.metadata.get("tokenizer.ggml.tokens", [])
        return calling.control_tokens(texts, self._loaded.engine.tokenize, self._loaded.engine.piece, spelt)

    def encode(
        self,
        messages: Sequence[Message],
        adapter: str | None,
        image: Source | Sequence[Source] | None,
        tools: Sequence[Mapping[str, Any]],
        template_arguments: Mapping[str, Any] | None,
    ) -> Prompt:
        """The prompt that the model sees for ``messages``, the adapter's system prompt included.

        Raises:
            InputError: unknown adapter, messages that the chat template refuses, or images that can't be used.
        """
        asking = _asking(self._catalogue.entry_of(adapter), tools, template_arguments)
        return self._prompts.chat(messages, asking, self._layouts(image))

    def text(self, text: str) -> list[int]:
        """Token ids of a rendered prompt."""
        return self._prompts.text(text)

    def _prompt(
        self,
        prompt: str | None,
        messages: Sequence[Message] | None,
        raw: str | Sequence[int] | None,
        asking: Asking,
        images: Sequence[Layout],
    ) -> tuple[Prompt, int, str]:
        """The prompt, how many of its tokens are the preamble, and the end of a conversation's text."""
        if raw is None:
            given = messages if messages is not None else [{"role": "user", "content": prompt}]
            asked, end = self._prompts.chat_and_end(given, asking, images)
            return asked, self._prompts.preamble(asked.tokens, asking), end
        if isinstance(raw, str):
            return Prompt(self._prompts.text(raw)), 0, ""
        known = len(self._loaded.header.metadata.get("tokenizer.ggml.tokens", ()))
        if not all(0 <= token < known for token in raw):
            raise InputError("the prompt has token ids that the base doesn't know", f"use ids from 0 to {known - 1}")
        return Prompt(list(raw)), 0, ""

    def _layouts(self, image: Source | Sequence[Source] | None) -> list[Layout]:
        """Images as the base sees them."""
        sources, reader = listed(image), self._loaded.images
        if not sources:
            return []
        if reader is None:
            raise InputError(f"{self._catalogue.manifest.name} is a text bundle", "send images to a caption bundle")
        pictures = read_pictures(sources)
        with self._laying_out:
            return [reader.layout(picture) for picture in pictures]

    def _check_limits(self, tokens: Sequence[int], max_tokens: int, *, echo: bool) -> None:
        context = self._loaded.engine.context
        if not tokens:
            raise InputError("the prompt is empty", "pass a non-empty prompt")
        if max_tokens < 0 or (max_tokens == 0 and not echo):
            raise UsageError(f"max_tokens {max_tokens} leaves no room for an answer", "ask for at least 1")
        if len(tokens) + max_tokens > context:
            raise InputError(
                f"the prompt's {len(tokens)} tokens and {max_tokens} for the answer exceed the context of {context}",
                "shorten the prompt, lower max_tokens or ask for a larger context",
            )


def _asking(
    entry: AdapterEntry | BaseEntry, tools: Sequence[Mapping[str, Any]], arguments: Mapping[str, Any] | None
) -> Asking:
    return Asking(entry.system, entry.template_arguments if arguments is None else arguments, tools)


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)
