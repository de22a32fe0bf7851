"""From what a caller asks to work for the engine's loop."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from edgekit_runtime.constraints import compiled
from edgekit_runtime.engines import Layout, Prompt, Sampling
from edgekit_runtime.errors import InputError, UsageError
from edgekit_runtime.formats.images import Source, listed, read_pictures
from edgekit_runtime.formats.manifest import AdapterEntry, BaseEntry
from edgekit_runtime.prompts.bounds import check_adapters, check_form, check_schema, check_stops
from edgekit_runtime.prompts.chat import Asking, Message
from edgekit_runtime.prompts.rendering import Prompts
from edgekit_runtime.prompts.tokenizing import BoundedTokenizer
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
        tools: descriptions of functions that the model may call, for the chat template.
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
    template_arguments: Mapping[str, Any] | None


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
        template_arguments: Mapping[str, Any] | None = None,
    ) -> tuple[Work, str | None]:
        """Work for the loop, and the adapter that does it (None for the bare base).

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
        asked, preamble = self._prompt(prompt, messages, raw, asking, self._layouts(image))
        limit = int(_first(max_tokens, defaults.get("max_tokens"), DEFAULT_MAX_TOKENS))
        stack, files = self._catalogue.stack(name, lora)
        self._check_limits(asked.tokens, limit, echo=echo, virtual=self._catalogue.virtual_tokens(name, lora))
        work = Work(
            prompt=asked.tokens,
            stack=stack,
            files=files,
            sampling=Sampling(
                temperature=float(_first(temperature, defaults.get("temperature"), 0.0)),
                top_k=int(_first(top_k, defaults.get("top_k"), Sampling.top_k)),
                top_p=float(_first(top_p, defaults.get("top_p"), Sampling.top_p)),
                seed=secrets.randbits(32) if seed is None else seed,
                grammar=compiled(schema=schema, regex=regex, grammar=grammar, choice=choice),
            ),
            max_tokens=limit,
            stop=tuple(stop),
            preamble=preamble,
            alternatives=logprobs,
            echo=echo,
            frames=asked.frames,
        )
        return work, name

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
    ) -> tuple[Prompt, int]:
        """The prompt, and how many of its tokens are the preamble."""
        if raw is None:
            given = messages if messages is not None else [{"role": "user", "content": prompt}]
            asked = self._prompts.chat(given, asking, images)
            return asked, self._prompts.preamble(asked.tokens, asking)
        if isinstance(raw, str):
            return Prompt(self._prompts.text(raw)), 0
        known = len(self._loaded.header.metadata.get("tokenizer.ggml.tokens", ()))
        if not all(0 <= token < known for token in raw):
            raise InputError("the prompt has token ids that the base doesn't know", f"use ids from 0 to {known - 1}")
        return Prompt(list(raw)), 0

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

    def _check_limits(self, tokens: Sequence[int], max_tokens: int, *, echo: bool, virtual: int) -> None:
        context = self._loaded.engine.context
        if not tokens:
            raise InputError("the prompt is empty", "pass a non-empty prompt")
        if max_tokens < 0 or (max_tokens == 0 and not echo):
            raise UsageError(f"max_tokens {max_tokens} leaves no room for an answer", "ask for at least 1")
        if virtual + len(tokens) + max_tokens > context:
            own = f", the adapter's {virtual} virtual ones" if virtual else ""
            raise InputError(
                f"the prompt's {len(tokens)} tokens{own} and {max_tokens} for the answer exceed the context of"
                f" {context}",
                "shorten the prompt, lower max_tokens or ask for a larger context",
            )


def _asking(
    entry: AdapterEntry | BaseEntry, tools: Sequence[Mapping[str, Any]], arguments: Mapping[str, Any] | None
) -> Asking:
    return Asking(entry.system, entry.template_arguments if arguments is None else arguments, tools)


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)
