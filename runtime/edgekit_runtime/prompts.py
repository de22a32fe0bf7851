"""From messages to the token ids that a base sees."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache

from edgekit_runtime.chat import Asking, ImageTemplate, Message, TextTemplate, apply_system, check_messages
from edgekit_runtime.engines import Frame, Layout, Prompt
from edgekit_runtime.errors import InputError
from edgekit_runtime.gguf import GgufFile
from edgekit_runtime.template import ChatTemplate, TemplateFacts

# Two questions with no beginning in common: what their prompts share is what all prompts share.
_PROBES = ("0", "?")
REMEMBERED_PREAMBLES = 1024


class Prompts:
    """A base's chat template and tokeniser together."""

    def __init__(self, header: GgufFile, tokenize: Callable[..., list[int]], *, with_images: bool = False) -> None:
        """Take the template from the base's metadata and the engine's tokeniser.

        Args:
            header: the base's metadata.
            tokenize: the engine's.
            with_images: the base reads images.

        Raises:
            InputError: there is no template, or a broken one.
        """
        self._template = chat_template(header)
        self._render = (ImageTemplate if with_images else TextTemplate)(self._template).render
        self._tokenize = tokenize
        self._preamble = lru_cache(REMEMBERED_PREAMBLES)(self._find_preamble)

    def chat(self, messages: Sequence[Message], asking: Asking, images: Sequence[Layout] = ()) -> Prompt:
        """A conversation's prompt, with an adapter's system prompt unless the conversation brings one.

        Args:
            messages: see :func:`~edgekit_runtime.chat.check_messages`.
            asking: the adapter's system prompt and arguments of the template, and the request's tools.
            images: in the order in which the messages speak of them.

        Raises:
            InputError: messages that the chat template refuses.
        """
        checked = apply_system(check_messages(messages, len(images)), asking.system)
        first, *rest = self._render(checked, len(images), tools=asking.tools, arguments=asking.arguments)
        layout: list[int | Frame] = list(self.text(first))
        for image, text in zip(images, rest, strict=True):
            layout += [*image, *self._tokenize(text, add_special=False)]
        return Prompt.of(layout)

    def text(self, text: str) -> list[int]:
        """Token ids of a rendered prompt; BOS is not added twice when the template has written it."""
        tokens = self._tokenize(text, add_special=True)
        plain = self._tokenize(text, add_special=False)
        return plain if len(tokens) > len(plain) and plain[:1] == tokens[:1] else tokens

    def preamble(self, prompt: Sequence[int], asking: Asking) -> int:
        """How many of the prompt's first tokens every conversation that is asked like this begins with."""
        given = [asking.system, dict(asking.arguments or {}), list(asking.tools)]
        shared = self._preamble(json.dumps(given), self._template.moment)
        return len(shared) if len(prompt) > len(shared) + 1 and list(prompt[: len(shared)]) == shared else 0

    def _find_preamble(self, given: str, _moment: str) -> list[int]:
        """Of an :class:`Asking` as JSON; a template that writes the date has another one each day."""
        asking = Asking(*json.loads(given))
        try:
            one, other = (self.chat([{"role": "user", "content": probe}], asking).tokens for probe in _PROBES)
        except InputError:  # a template that wants other messages has no preamble
            return []
        differs = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
        return one[:differs]


def chat_template(header: GgufFile) -> ChatTemplate:
    """The chat template in a base's metadata.

    Raises:
        InputError: there is none, or a broken one.
    """
    return ChatTemplate.of(TemplateFacts.read(header))
