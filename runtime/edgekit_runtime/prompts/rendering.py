"""From messages to the token ids that a base sees."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache

from edgekit_runtime.engines import Frame, Layout, Prompt
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.gguf import GgufFile
from edgekit_runtime.prompts.chat import Asking, ImageTemplate, Message, TextTemplate, apply_system, check_messages
from edgekit_runtime.prompts.specials import Asked, Disguise, specials_of
from edgekit_runtime.prompts.template import ChatTemplate, TemplateFacts
from edgekit_runtime.prompts.tool_format import ToolFormat

# Two questions with no beginning in common: what their prompts share is what all prompts share.
_PROBES = ("0", "?")
REMEMBERED_PREAMBLES = 1024


class Prompts:
    """A base's chat template and tokeniser together."""

    def __init__(
        self,
        header: GgufFile,
        tokenize: Callable[..., list[int]],
        *,
        with_images: bool = False,
        allow_special: bool = False,
    ) -> None:
        """Take the template from the base's metadata and the engine's tokeniser.

        Args:
            header: the base's metadata.
            tokenize: the engine's.
            with_images: the base reads images.
            allow_special: control tokens that are spelt in messages are some.

        Raises:
            InputError: there is no template, or a broken one.
        """
        self._template = chat_template(header)
        self._form = (ImageTemplate if with_images else TextTemplate)(self._template)
        self._specials = None if allow_special else specials_of(header, self._template.literals)
        self._tokenize = tokenize
        self._bos = _bos(tokenize)
        self._preamble = lru_cache(REMEMBERED_PREAMBLES)(self._find_preamble)

    def chat(self, messages: Sequence[Message], asking: Asking, images: Sequence[Layout] = ()) -> Prompt:
        """A conversation's prompt, with an adapter's system prompt unless the conversation brings one.

        Args:
            messages: see :func:`~edgekit_runtime.prompts.chat.check_messages`.
            asking: the adapter's system prompt and arguments of the template, and the request's tools.
            images: in the order in which the messages speak of them.

        Raises:
            InputError: messages that the chat template refuses.
        """
        return self.chat_and_end(messages, asking, images)[0]

    def chat_and_end(
        self, messages: Sequence[Message], asking: Asking, images: Sequence[Layout] = ()
    ) -> tuple[Prompt, str]:
        """A conversation's prompt as :meth:`chat` gives it, and the text behind its last image."""
        checked = apply_system(check_messages(messages, len(images)), asking.system)
        asked = Asked(checked, asking.tools, asking.arguments)
        texts, disguise = self._rendered(asked, len(images))
        first, *rest = texts
        layout: list[int | Frame] = list(self._ids(first, disguise, starts_text=True))
        for image, text in zip(images, rest, strict=True):
            layout += [*image, *self._ids(text, disguise, starts_text=False)]
        return Prompt.of(layout), texts[-1]

    @property
    def template(self) -> ChatTemplate:
        """The base's."""
        return self._template

    @property
    def calls(self) -> ToolFormat:
        """How the base writes calls of functions."""
        return self._form.tools.form

    def _rendered(self, asked: Asked, images: int) -> tuple[tuple[str, ...], Disguise | None]:
        def render(each: Asked) -> tuple[str, ...]:
            return self._form.render(each.messages, images, tools=each.tools, arguments=each.arguments)

        return (render(asked), None) if self._specials is None else self._specials.rendered(asked, render)

    def _ids(self, text: str, disguise: Disguise | None, *, starts_text: bool) -> list[int]:
        if self._specials is None or disguise is None:
            return self.text(text) if starts_text else self._tokenize(text, add_special=False)
        ids: list[int] = []
        for piece, special in self._specials.pieces(text, disguise, self._piece_ids):
            starts = starts_text and not ids
            ids += self.text(piece, special=special) if starts else self._piece_ids(piece, special)
        return ids

    def _piece_ids(self, text: str, special: bool) -> list[int]:
        return self._tokenize(text, add_special=False, parse_special=special)

    def text(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids of a rendered prompt, or of its beginning, with BOS where the base wants it: not twice when the
        template has written it.  A tokeniser that ends texts with EOS leaves it out here: the text goes on.

        Control tokens that are spelt in it are some, unless ``special`` says otherwise.
        """
        tokens = self._tokenize(text, add_special=False, parse_special=special)
        return tokens if tokens[: len(self._bos)] == self._bos else [*self._bos, *tokens]

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


def _bos(tokenize: Callable[..., list[int]]) -> list[int]:
    """What a tokeniser puts before any text: BOS, or nothing."""
    whole, plain = (tokenize(_PROBES[0], add_special=add) for add in (True, False))
    places = range(len(whole) - len(plain) + 1)
    return next((whole[:at] for at in places if whole[at : at + len(plain)] == plain), [])


def chat_template(header: GgufFile) -> ChatTemplate:
    """The chat template in a base's metadata, tried with a question.

    Raises:
        InputError: there is none, or a broken one, or one that takes too much.
    """
    template = ChatTemplate.of(TemplateFacts.read(header))
    template.try_out()
    return template
