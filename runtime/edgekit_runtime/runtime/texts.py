"""What a base makes of texts and conversations: token ids, prompts, and the way back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgekit_runtime.errors import ContextExceeded, InputError
from edgekit_runtime.prompts.chat import Asking, Message
from edgekit_runtime.prompts.rendering import Prompts
from edgekit_runtime.prompts.template import TemplateFacts
from edgekit_runtime.prompts.tokenizing import BoundedTokenizer
from edgekit_runtime.runtime.loading import Loaded

Ask = Callable[..., Asking]


class Texts:
    """A base's tokenizer and chat template.  Several threads may use them at once."""

    def __init__(self, loaded: Loaded, tokenize: BoundedTokenizer, prompts: Prompts, asking: Ask) -> None:
        """Take what requests are read with; ``asking`` says what an adapter adds to messages."""
        self._loaded, self._tokenize, self._prompts, self._asking = loaded, tokenize, prompts, asking
        self._tokens: list[str] = loaded.header.metadata.get("tokenizer.ggml.tokens", [])

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        """Token ids of a text.

        Args:
            text: as it is.
            add_special: put BOS and the like around it, where the base wants them.
            parse_special: control tokens that are spelt in it are some.

        Raises:
            InputError: it can't fit the context.
        """
        return self._bounded(self._tokenize(text, add_special=add_special, parse_special=parse_special))

    def encode(self, messages: Sequence[Message], **options: Any) -> list[int]:
        """Token ids of a conversation's prompt; options as for :meth:`render`.

        Raises:
            InputError: unknown adapter, messages that the chat template refuses, or that can't fit the context.
        """
        return self._bounded(self._prompts.chat(messages, self._asking(messages, **options)).tokens)

    def render(self, messages: Sequence[Message], **options: Any) -> str:
        """A conversation's prompt as text.

        Args:
            messages: the conversation.
            **options: ``adapter``, ``tools``, ``template_arguments``, ``add_generation_prompt`` and
                ``continue_final_message``, see :class:`~edgekit_runtime.Options`.

        Raises:
            InputError: unknown adapter, or messages that the chat template refuses.
        """
        return self._prompts.rendered(messages, self._asking(messages, **options))

    def pieces(self, tokens: Sequence[int]) -> list[bytes]:
        """The bytes of each token; of a control token, those that spell it.

        Raises:
            InputError: a token that the base doesn't know.
        """
        known = len(self._tokens)
        if not all(0 <= token < known for token in tokens):
            raise InputError("there are token ids that the base doesn't know", f"use ids from 0 to {known - 1}")
        return [self._loaded.engine.piece(token) or self._tokens[token].encode() for token in tokens]

    def facts(self) -> Mapping[str, Any]:
        """What the base says of its tokenizer: the chat template, special tokens, the kind, how many tokens it has."""
        facts, metadata = TemplateFacts.read(self._loaded.header), self._loaded.header.metadata
        return {
            "tokenizer_class": metadata.get("tokenizer.ggml.model"),
            "pre_tokenizer": metadata.get("tokenizer.ggml.pre"),
            "vocab_size": len(self._tokens),
            "model_max_length": self._loaded.engine.context,
            "chat_template": facts.sources.get("default"),
            **facts.tokens,
        }

    def _bounded(self, tokens: list[int]) -> list[int]:
        context = self._loaded.engine.context
        if len(tokens) > context:
            raise ContextExceeded(f"there are {len(tokens)} tokens, and the context has {context}", "send less")
        return tokens
