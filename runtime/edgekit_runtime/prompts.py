"""From messages to the token ids that a base sees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from edgekit_runtime.chat import ChatTemplate, ImageTemplate, Message, apply_system, check_messages, text_of
from edgekit_runtime.engines import Frame, Layout, Prompt
from edgekit_runtime.errors import InputError
from edgekit_runtime.gguf import GgufFile

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
        template = chat_template(header)
        self._render = ImageTemplate(template).render if with_images else _text_alone(template)
        self._tokenize = tokenize
        self._preamble = lru_cache(REMEMBERED_PREAMBLES)(self._find_preamble)

    def chat(self, messages: Sequence[Message], system: str | None, images: Sequence[Layout] = ()) -> Prompt:
        """A conversation's prompt, with an adapter's system prompt unless the conversation brings one.

        Args:
            messages: see :func:`~edgekit_runtime.chat.check_messages`.
            system: the adapter's.
            images: in the order in which the messages speak of them.

        Raises:
            InputError: messages that the chat template refuses.
        """
        checked = apply_system(check_messages(messages, len(images)), system)
        first, *rest = self._render(checked, len(images))
        layout: list[int | Frame] = list(self.text(first))
        for image, text in zip(images, rest, strict=True):
            layout += [*image, *self._tokenize(text, add_special=False)]
        return Prompt.of(layout)

    def text(self, text: str) -> list[int]:
        """Token ids of a rendered prompt; BOS is not added twice when the template has written it."""
        tokens = self._tokenize(text, add_special=True)
        plain = self._tokenize(text, add_special=False)
        return plain if len(tokens) > len(plain) and plain[:1] == tokens[:1] else tokens

    def preamble(self, prompt: Sequence[int], system: str | None) -> int:
        """How many of the prompt's first tokens every conversation under this system prompt begins with."""
        shared = self._preamble(system)
        return len(shared) if len(prompt) > len(shared) + 1 and list(prompt[: len(shared)]) == shared else 0

    def _find_preamble(self, system: str | None) -> list[int]:
        try:
            one, other = (self.chat([{"role": "user", "content": probe}], system).tokens for probe in _PROBES)
        except InputError:  # a template that wants other messages has no preamble
            return []
        differs = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
        return one[:differs]


def _text_alone(template: ChatTemplate) -> Callable[[Sequence[Message], int], tuple[str, ...]]:
    def render(messages: Sequence[Message], images: int) -> tuple[str, ...]:
        if images:
            raise InputError("this is a text bundle", "send images to a caption bundle")
        return (template.render([{**each, "content": text_of(each)} for each in messages]),)

    return render


def chat_template(header: GgufFile) -> ChatTemplate:
    """The chat template in a base's metadata.

    Raises:
        InputError: there is none, or a broken one.
    """
    metadata = header.metadata
    source = metadata.get("tokenizer.chat_template")
    if not isinstance(source, str):
        raise InputError(f"{header.path} has no chat template", "export an instruct or chat model")
    tokens: list[str] = metadata.get("tokenizer.ggml.tokens", [])

    def special(kind: str) -> str:
        number = metadata.get(f"tokenizer.ggml.{kind}_token_id")
        return tokens[number] if isinstance(number, int) and number < len(tokens) else ""

    return ChatTemplate(source, special("bos"), special("eos"))
