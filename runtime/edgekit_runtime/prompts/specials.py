"""Control tokens come from the chat template, never from what somebody writes into a conversation.

Where a conversation holds signs that begin control tokens, it is rendered with other signs in their places, which no
text has.  So each control token in the rendered text is told by its first sign: the template's own has the real one.
What is between the template's tokens and spells another one is tokenised with control tokens off.  A conversation that
spells none is rendered and tokenised as it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from edgekit_runtime.errors import InputError, shown
from edgekit_runtime.formats.gguf import GgufFile
from edgekit_runtime.prompts.reasoning import KNOWN_TAGS
from edgekit_runtime.prompts.template import Message

# llama.cpp's kinds of tokens (gguf-py, class TokenType).
UNKNOWN, CONTROL = 2, 3
_PLANES = (0xF0000, 0x100000)  # Unicode's private ones: where a sign's other one is
_ASSISTANT = "assistant"

Span = tuple[int, int]
Ids = Callable[[str, bool], list[int]]  # a text to token ids, with control tokens on or off
Render = Callable[["Asked"], tuple[str, ...]]


class Asked(NamedTuple):
    """What a template renders."""

    messages: Sequence[Message]
    tools: Sequence[Mapping[str, Any]] = ()
    arguments: Mapping[str, Any] | None = None


class Specials:
    """A base's control tokens."""

    def __init__(self, texts: Iterable[str], literals: Iterable[str] = ()) -> None:
        """Take the tokens' texts, and the texts that the chat template looks for in messages."""
        known = sorted({text for text in texts if text}, key=len, reverse=True)
        self.pattern = _any_of(known)
        signs = {sign for text in known if (sign := _first_sign(text))}
        words = [text for text in known if not _first_sign(text)]
        self._signs, self._words = signs, words
        self._trigger = _any_of([*signs, *words])
        self._literals = [each for each in literals if signs & set(each) and not self.pattern.search(each)]
        self._tags = [tag for tags in KNOWN_TAGS for tag in tags]

    def spans(self, text: str) -> list[Span]:
        """Where control tokens stand in a text."""
        return [match.span() for match in self.pattern.finditer(text)]

    def found_in(self, value: Any) -> str | None:
        """A control token in the texts of a value."""
        found = (self.pattern.search(text) for text in _texts(value))
        return next((match[0] for match in found if match), None)

    def concern(self, asked: Asked) -> bool:
        """Whether a conversation has signs that begin control tokens."""
        return any(map(self._trigger.search, _texts(list(asked))))

    def rendered(self, asked: Asked, render: Render) -> tuple[tuple[str, ...], Disguise | None]:
        """A conversation's text before, between and after its images, with other signs where it has some.

        Raises:
            InputError: the template refuses the messages, or makes control tokens of what is in them.
        """
        if not self.concern(asked):
            return render(asked), None
        plane = self._free_plane(list(_texts(list(asked))))
        plain = render(asked)
        try:
            every = self._disguise(plane, [])
            hidden = every.rendered(asked, render)
            if every.shown_all(hidden) == plain:
                return hidden, every
            most = self._disguise(plane, self._literals)  # the template looks for something in the texts
            less = most.rendered(asked, render)
        except RecursionError:
            raise InputError("a message is nested too deep", "send flatter ones") from None
        if self._sequence(less) != self._sequence(hidden):
            raise InputError(
                "the base's chat template makes a control token of what is in a message",
                f"leave {shown(self.found_in(list(asked)) or 'its signs')} out",
            )
        return less, most

    def _free_plane(self, texts: Sequence[str]) -> int:
        """Where signs are that none of the texts has, as they are or as JSON may spell them."""
        for plane in _PLANES:
            others = [chr(plane + ord(sign)) for sign in self._firsts]
            if not any(each in text or json.dumps(each)[1:-1] in text for text in texts for each in others):
                return plane
        raise InputError("a message has private characters of Unicode's last planes", "leave them out")

    @property
    def _firsts(self) -> set[str]:
        return self._signs | {word[0] for word in self._words}

    def _disguise(self, plane: int, kept: Sequence[str]) -> Disguise:
        return Disguise(self._firsts, plane, self._hider(plane, kept), self._hider(plane, [*kept, *self._tags]))

    def _hider(self, plane: int, kept: Sequence[str]) -> Callable[[str], str]:
        """Puts other signs into a text, but for what is kept."""
        words, leave = set(self._words), set(kept)
        parts = _any_of([*kept, *self._words, *self._signs])

        def other(match: re.Match[str]) -> str:
            text = match[0]
            if text in leave:
                return text
            return f"{chr(plane + ord(text[0]))}{text[1:] if text in words else ''}"

        return lambda text: parts.sub(other, text)

    def _sequence(self, texts: Iterable[str]) -> list[list[str]]:
        return [self.pattern.findall(text) for text in texts]

    def ids(self, text: str, disguise: Disguise | None, tokenize: Ids) -> list[int]:
        """Token ids of a rendered text, as :meth:`pieces` cuts it."""
        return [token for piece, special in self.pieces(text, disguise, tokenize) for token in tokenize(piece, special)]

    def pieces(self, text: str, disguise: Disguise | None, tokenize: Ids) -> list[tuple[str, bool]]:
        """A rendered text, each piece with whether control tokens in it are some."""
        if disguise is None:
            return [(text, True)]
        plain, real = disguise.shown(text), self.spans(text)
        forged = sorted(set(self.spans(plain)) - set(real))
        if not forged:
            return [(plain, True)]
        pieces: list[tuple[str, bool]] = []
        begun = 0
        for first, last in _between(real, len(plain)):
            if not any(first <= start < last for start, _ in forged):
                continue
            start, end = first, last
            if first:  # a control token may take the white space beside it
                token = next(plain[a:b] for a, b in real if b == first)
                start = _swallowed(plain, first, last, token, tokenize)
            pieces.append((plain[begun:start], True))
            pieces += ((piece, False) for piece in self._unmatched(plain[start:end], tokenize))
            begun = end
        pieces.append((plain[begun:], True))
        return [piece for piece in pieces if piece[0]]

    def _unmatched(self, text: str, tokenize: Ids) -> Iterator[str]:
        """Cut where a tokenizer knows a token even with control tokens off: behind its first sign."""
        begun = 0
        for start, end in self.spans(text):
            if len(tokenize(text[start:end], False)) == 1:
                yield text[begun : start + 1]
                begun = start + 1
        yield text[begun:]


class Disguise:
    """Other signs in the places of those that begin control tokens, one for one."""

    def __init__(
        self, signs: set[str], plane: int, hide: Callable[[str], str], hide_answer: Callable[[str], str]
    ) -> None:
        """Take what hides signs in a text, and in one of the assistant, whose reasoning is marked by tags."""
        self._back = {plane + ord(sign): sign for sign in signs}
        self._spelt = {json.dumps(chr(other))[1:-1]: chr(other) for other in self._back}
        self._hide, self._hide_answer = hide, hide_answer

    def rendered(self, asked: Asked, render: Render) -> tuple[str, ...]:
        """A conversation's text with other signs."""
        return self.mended(render(self.asked(asked)))

    def mended(self, texts: Sequence[str]) -> tuple[str, ...]:
        """Rendered texts in which JSON may have spelt the other signs in ASCII."""
        for spelt, other in self._spelt.items():
            texts = [text.replace(spelt, other) for text in texts]
        return tuple(texts)

    def asked(self, asked: Asked) -> Asked:
        """All texts of a conversation."""
        return Asked(
            [self.message(each) for each in asked.messages],
            [self.value(each) for each in asked.tools],
            None if asked.arguments is None else self.value(asked.arguments),
        )

    def message(self, message: Message) -> Message:
        """All texts of a message."""
        hide = self._hide_answer if message.get("role") == _ASSISTANT else self._hide
        hidden: Message = _hidden(message, hide)
        return hidden

    def value(self, value: Any) -> Any:
        """All texts of a value."""
        return _hidden(value, self._hide)

    def answer(self, text: str) -> str:
        """A text of the assistant."""
        return self._hide_answer(text)

    def shown(self, text: str) -> str:
        """The text with its own signs."""
        return text.translate(self._back)

    def shown_all(self, texts: Sequence[str]) -> tuple[str, ...]:
        """Texts with their own signs."""
        return tuple(map(self.shown, texts))


def specials_of(header: GgufFile, literals: Iterable[str]) -> Specials:
    """Control tokens of a GGUF's vocabulary."""
    texts = header.metadata.get("tokenizer.ggml.tokens", [])
    kinds = header.metadata.get("tokenizer.ggml.token_type") or [0] * len(texts)
    known = (text for text, kind in zip(texts, kinds, strict=False) if kind in (UNKNOWN, CONTROL) or is_control(text))
    return Specials(known, literals)


def is_control(text: str) -> bool:
    """Whether a token is a control token by its looks; llama.cpp's converters make one of it then."""
    return text.startswith(("<|", "<｜")) and text.endswith(("|>", "｜>"))


def _first_sign(text: str) -> str:
    """The first character of a token, where words don't begin with it."""
    return "" if text[0].isalnum() or text[0].isspace() else text[0]


def _any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """Any of these, the longest first; nothing where there are none."""
    longest = sorted(set(texts), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest)) if longest else r"(?!)")


def _texts(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, Mapping):
            waiting += each.keys()
            waiting += each.values()
        elif isinstance(each, (list, tuple)):
            waiting += each


def _hidden(value: Any, hide: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return hide(value)
    if isinstance(value, Mapping):
        return {_hidden(key, hide): _hidden(each, hide) for key, each in value.items()}
    return [_hidden(each, hide) for each in value] if isinstance(value, (list, tuple)) else value


def _between(spans: Sequence[Span], length: int) -> Iterator[Span]:
    """What is not in any of the spans."""
    begun = 0
    for start, end in spans:
        yield begun, start
        begun = end
    yield begun, length


def _swallowed(text: str, first: int, last: int, token: str, tokenize: Ids) -> int:
    """Where the text behind a token begins, when the token takes white space with it."""
    rest = text[first:last]
    space = rest[: len(rest) - len(rest.lstrip())]
    return first + len(space) if space and tokenize(token + space, True) == tokenize(token, True) else first
