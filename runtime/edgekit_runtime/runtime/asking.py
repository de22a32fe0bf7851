"""From what a caller asks to work for the engine's loop."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, Unpack

from edgekit_runtime.constraints import compiled
from edgekit_runtime.engines import Layout, Prompt, ThinkingBudget
from edgekit_runtime.errors import ContextExceeded, InputError, UsageError
from edgekit_runtime.formats.images import Source, listed, read_pictures
from edgekit_runtime.formats.route import Route
from edgekit_runtime.prompts.bounds import TO_CONTEXT, check_adapters, check_form, check_schema, check_stops
from edgekit_runtime.prompts.chat import Asking, Message
from edgekit_runtime.prompts.continuing import Ending, ending_of, last_text
from edgekit_runtime.prompts.reasoning import knows_reasoning, tags_of
from edgekit_runtime.prompts.rendering import Prompts
from edgekit_runtime.prompts.thinking import Thinking, thinking_arguments, thinking_in
from edgekit_runtime.prompts.tokenizing import BoundedTokenizer
from edgekit_runtime.prompts.tool_grammar import NONE
from edgekit_runtime.runtime import calling
from edgekit_runtime.runtime.calling import Choice
from edgekit_runtime.runtime.catalogue import Catalogue
from edgekit_runtime.runtime.loading import Loaded
from edgekit_runtime.runtime.options import SamplingOptions, first, sampling_of
from edgekit_runtime.runtime.routing import Router
from edgekit_runtime.runtime.texts import Texts
from edgekit_runtime.scheduler import Work

DEFAULT_MAX_TOKENS = 256


class Asked(NamedTuple):
    """A request that has been read.

    Attributes:
        work: for the loop.
        adapter: that does it; None for the bare base.
        reading: how calls are read from its answer, where some may come.
        thinking: how reasoning is told in it, where the base's template knows any.
        route: how the adapter was chosen, where the request left that to the device.
    """

    work: Work
    adapter: str | None
    reading: calling.Reading | None
    thinking: Thinking | None
    route: Route | None = None


class Asker:
    """Reads requests: prompt, images, schema and defaults of the adapter.  Several threads may do so at once."""

    def __init__(self, loaded: Loaded, catalogue: Catalogue, *, allow_special: bool) -> None:
        """``allow_special``: control tokens that are spelt in messages are some, not text."""
        self._loaded, self._catalogue = loaded, catalogue
        self._laying_out = threading.Lock()
        self._vocabulary = len(loaded.header.metadata.get("tokenizer.ggml.tokens", ()))
        tokenizer = BoundedTokenizer(loaded.engine, loaded.header)
        self._prompts = Prompts(
            loaded.header, tokenizer, with_images=loaded.images is not None, allow_special=allow_special
        )
        self.router = Router(loaded, catalogue)
        self.texts = Texts(loaded, tokenizer, self._prompts, self._asking_of)

    def work(
        self,
        prompt: str | None = None,
        *,
        messages: Sequence[Message] | None = None,
        raw: str | Sequence[int] | None = None,
        adapter: str | None = None,
        lora: Mapping[str, float] | None = None,
        max_tokens: int | None = None,
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
        chat_template_kwargs: Mapping[str, Any] | None = None,
        reasoning_effort: str | None = None,
        thinking_budget: int | None = None,
        add_generation_prompt: bool | None = None,
        continue_final_message: bool | None = None,
        **sampling: Unpack[SamplingOptions],
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
        adapter, route = self._routed(adapter, lora, prompt if raw is None else raw, messages)
        name, entry = self._catalogue.name_of(adapter), self._catalogue.entry_of(adapter)
        defaults = entry.generation or {}
        if listed(image) and (raw is not None or echo):
            raise UsageError("a raw prompt or an echo can't have images", "send messages")
        asking = self._asking(
            adapter,
            tools,
            template_arguments,
            chat_template_kwargs=chat_template_kwargs,
            reasoning_effort=reasoning_effort,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
        )
        called = calling.Asked.of(tools, tool_choice, parallel_tool_calls)
        if raw is not None and tools:
            raise UsageError("a raw prompt has no tools", "send messages, or leave them out")
        asked, preamble, end = self._prompt(prompt, messages, raw, asking, self._layouts(image))
        stack, files = self._catalogue.stack(name, lora)
        virtual = self._catalogue.virtual_tokens(name, lora)
        limit = int(first(max_tokens, defaults.get("max_tokens"), DEFAULT_MAX_TOKENS))
        if limit == TO_CONTEXT:
            limit = max(self._loaded.engine.context - virtual - len(asked.tokens), 1)
        self._check_limits(asked.tokens, limit, echo=echo, virtual=virtual)
        if first(sampling.get("min_tokens"), 0) > limit:
            raise UsageError(f"min_tokens is more than the {limit} that max_tokens allows", "lower it")
        continued = last_text(messages) if messages and asking.ending is Ending.TEXT else None
        thinking = None if raw is not None else self._thinking(end, continued)
        formed = any(each is not None for each in (schema, regex, grammar, choice))
        grammar, reading = self._held(
            called, end, continued, schema=schema, regex=regex, grammar=grammar, choice=choice
        )
        shown = self._controls if tools else self._tags if thinking is not None else {}
        work = Work(
            prompt=asked.tokens,
            stack=stack,
            files=files,
            sampling=sampling_of(
                sampling,
                defaults,
                grammar=grammar,
                vocabulary=self._vocabulary,
                thinking=_budget(thinking_budget, thinking, formed=formed),
            ),
            max_tokens=limit,
            stop=tuple(stop),
            preamble=preamble,
            alternatives=logprobs,
            echo=echo,
            frames=asked.frames,
            shown={token: text.encode() for text, token in shown.items()},
        )
        return Asked(work, name, reading, thinking, route)

    def _routed(
        self,
        adapter: str | None,
        lora: Mapping[str, float] | None,
        text: str | Sequence[int] | None,
        messages: Sequence[Message] | None,
    ) -> tuple[str | None, Route | None]:
        """Who answers, and how that was found where the request asks for ``auto``."""
        if lora is not None and self._catalogue.means_auto(adapter):
            raise UsageError("auto chooses one adapter, and lora names some", "leave one of them out")
        return self.router.resolved(adapter, text, messages)

    def _asking_of(self, messages: Sequence[Message], adapter: str | None = None, **asked: Any) -> Asking:
        """:meth:`_asking` for a conversation, whose adapter may be left to the device."""
        return self._asking(self._routed(adapter, None, None, messages)[0], **asked)

    def _held(
        self, called: calling.Asked | None, end: str, continued: str | None, **forms: Any
    ) -> tuple[str | None, calling.Reading | None]:
        """What the answer is held to, and how calls are read from it."""
        others = [name for name, each in forms.items() if each is not None and name != "schema"]
        if called is None or (called.choice == NONE and (others or forms["schema"] is not None)):
            return compiled(**forms), None
        if others:
            raise UsageError(f"an answer can't follow {others[0]} and call tools", "send a schema, or tool_choice none")
        template, form = self._prompts.template, self._prompts.calls
        return called.grammar(template, form, end, self._controls, forms["schema"], continued)

    @cached_property
    def _controls(self) -> dict[str, int]:
        """Control tokens around calls and reasoning."""
        return self._control_tokens([*self._prompts.calls.literals, *tags_of(self._prompts.template)])

    @cached_property
    def _tags(self) -> dict[str, int]:
        """Control tokens around reasoning alone."""
        return self._control_tokens(tags_of(self._prompts.template))

    def _control_tokens(self, texts: Sequence[str]) -> dict[str, int]:
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
        asking = self._asking_of(messages, adapter, tools=tools, template_arguments=template_arguments)
        return self._prompts.chat(messages, asking, self._layouts(image))

    def count(
        self,
        messages: Sequence[Message],
        *,
        adapter: str | None = None,
        lora: Mapping[str, float] | None = None,
        image: Source | Sequence[Source] | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
        **asked: Any,
    ) -> int:
        """How many tokens a conversation's prompt has, as the usage of its answer counts them.

        Raises:
            InputError: unknown adapter, messages that the chat template refuses, images or tools that can't be used.
        """
        calling.Asked.of(tools, None, None)
        adapter, _ = self._routed(adapter, lora, None, messages)
        asking = self._asking(adapter, tools, **asked)
        prompt = self._prompts.chat(messages, asking, self._layouts(image))
        return len(prompt.tokens) + self._catalogue.virtual_tokens(self._catalogue.name_of(adapter), lora)

    def text(self, text: str) -> list[int]:
        """Token ids of a rendered prompt."""
        return self._prompts.text(text)

    def _asking(
        self,
        adapter: str | None,
        tools: Sequence[Mapping[str, Any]] = (),
        template_arguments: Mapping[str, Any] | None = None,
        *,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        reasoning_effort: str | None = None,
        add_generation_prompt: bool | None = None,
        continue_final_message: bool | None = None,
    ) -> Asking:
        """What adapter and request add to a conversation."""
        entry = self._catalogue.entry_of(adapter)
        own = entry.template_arguments if template_arguments is None else template_arguments
        asked = thinking_arguments(self._prompts.template, chat_template_kwargs, reasoning_effort)
        arguments = {**(own or {}), **asked}
        ending = ending_of(add_generation_prompt=add_generation_prompt, continue_final_message=continue_final_message)
        return Asking(entry.system, arguments, tools, ending)

    def _thinking(self, end: str, continued: str | None) -> Thinking | None:
        """How reasoning is told in the answer to a prompt that ends so."""
        template = self._prompts.template
        if not knows_reasoning(template):
            return None
        return thinking_in(tags_of(template), end, continued)

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
        if not all(0 <= token < self._vocabulary for token in raw):
            hint = f"use ids from 0 to {self._vocabulary - 1}"
            raise InputError("the prompt has token ids that the base doesn't know", hint)
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

    def _check_limits(self, tokens: Sequence[int], max_tokens: int, *, echo: bool, virtual: int) -> None:
        context = self._loaded.engine.context
        if not tokens:
            raise InputError("the prompt is empty", "pass a non-empty prompt")
        if max_tokens < 0 or (max_tokens == 0 and not echo):
            raise UsageError(f"max_tokens {max_tokens} leaves no room for an answer", "ask for at least 1")
        if virtual + len(tokens) + max_tokens > context:
            own = f", the adapter's {virtual} virtual ones" if virtual else ""
            raise ContextExceeded(
                f"the prompt's {len(tokens)} tokens{own} and {max_tokens} for the answer exceed the context of"
                f" {context}",
                "shorten the prompt, lower max_tokens or ask for a larger context",
            )


def _budget(tokens: int | None, thinking: Thinking | None, *, formed: bool) -> ThinkingBudget | None:
    """The bound of an answer's reasoning."""
    if tokens is None:
        return None
    if tokens < 0:
        raise UsageError(f"thinking_budget {tokens} is not possible", "use 0 or more")
    if thinking is None:
        raise InputError("the base's chat template knows no reasoning", "leave thinking_budget out")
    if formed:
        raise UsageError("an answer in a form has no reasoning", "leave thinking_budget out")
    return ThinkingBudget(tokens, thinking.start, thinking.end, thinking.open)
