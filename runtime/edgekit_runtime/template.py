"""Chat templates as transformers renders them (``apply_chat_template``): jinja, its names and its special tokens.

Templates come from files, so they run in jinja's immutable sandbox.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from edgekit_runtime.errors import InputError
from edgekit_runtime.gguf import GgufFile

if TYPE_CHECKING:
    import jinja2

Message = dict[str, Any]
DEFAULT, TOOL_USE = "default", "tool_use"  # names of templates that transformers asks for
# llama.cpp's keys: the template, one of several by name, and which names there are (gguf-py, class Keys.Tokenizer).
KEY_TEMPLATE = "tokenizer.chat_template"
KEY_NAMES = "tokenizer.chat_templates"
KEY_TOKENS = "edgekit.template_tokens"  # JSON: special tokens as templates see them
# Special tokens in metadata that others wrote -> the name that templates have for them.
_GGUF_TOKENS = {
    "bos": "bos_token",
    "eos": "eos_token",
    "unknown": "unk_token",
    "seperator": "sep_token",  # so spelt
    "padding": "pad_token",
    "cls": "cls_token",
    "mask": "mask_token",
}
_CLOCK = "strftime_now"
# Names of a message's reasoning; the first one is the standard, gpt-oss's template reads the second.
REASONING = ("reasoning_content", "thinking", "reasoning")
_stopped_at: ContextVar[datetime.datetime | None] = ContextVar("stopped_at", default=None)


@dataclass(frozen=True)
class TemplateFacts:
    """A base's chat templates by name, and its special tokens by the name of their variable."""

    sources: Mapping[str, str]
    tokens: Mapping[str, str]

    @classmethod
    def of(cls, chat_template: str | Mapping[str, str], tokens: Mapping[str, str]) -> TemplateFacts:
        """One template, or several by name."""
        sources = {DEFAULT: chat_template} if isinstance(chat_template, str) else dict(chat_template)
        return cls(sources, dict(tokens))

    @property
    def digest(self) -> str:
        """sha256 of all of it."""
        return hashlib.sha256(json.dumps(self.metadata(), sort_keys=True).encode()).hexdigest()

    @classmethod
    def read(cls, header: GgufFile) -> TemplateFacts:
        """What a base's metadata holds.

        Raises:
            InputError: no template, or special tokens that are none.
        """
        metadata = header.metadata
        names = metadata.get(KEY_NAMES)
        sources = {name: metadata.get(f"{KEY_TEMPLATE}.{name}") for name in names} if isinstance(names, list) else {}
        sources[DEFAULT] = metadata.get(KEY_TEMPLATE)
        texts = {name: source for name, source in sources.items() if isinstance(source, str)}
        if not texts:
            raise InputError(f"{header.path} has no chat template", "export an instruct or chat model")
        return cls(texts, _tokens_in(header))

    def metadata(self) -> dict[str, Any]:
        """The same as metadata of a GGUF file; None for keys that it must not have."""
        names = sorted(set(self.sources) - {DEFAULT})
        return {
            KEY_TEMPLATE: self.sources.get(DEFAULT),
            KEY_NAMES: names or None,
            f"{KEY_TEMPLATE}.{TOOL_USE}": None,  # of another template that stood there
            **{f"{KEY_TEMPLATE}.{name}": self.sources[name] for name in names},
            KEY_TOKENS: json.dumps(dict(self.tokens), sort_keys=True),
        }


class ChatTemplate:
    """A base's compiled chat template.

    Attributes:
        variables: names that it reads and doesn't set itself.
        source: its text, of several the one for conversations without tools.
    """

    def __init__(self, source: str | Mapping[str, str], tokens: Mapping[str, str] | None = None) -> None:
        """Compile.

        Args:
            source: the template, or several by name, of which transformers' rule takes one.
            tokens: special tokens by the name of their variable; a token that a base lacks has none.

        Raises:
            InputError: no valid jinja, or several templates without a default one.
        """
        sources = {DEFAULT: source} if isinstance(source, str) else source
        if DEFAULT not in sources:
            raise InputError(
                f"the base has the chat templates {', '.join(sorted(sources))}, and none is called {DEFAULT}",
                "name a file with one of them as chat_template: in edgekit.yaml",
            )
        self._tokens = dict(tokens or {})
        self._compiled = {name: _compiled(sources[name]) for name in (DEFAULT, TOOL_USE) if name in sources}
        self.source = sources[DEFAULT]
        self._reads_clock = any(_CLOCK in sources[name] for name in self._compiled)
        self.variables = frozenset[str]().union(*(_variables(sources[name]) for name in self._compiled))

    @classmethod
    def of(cls, facts: TemplateFacts) -> ChatTemplate:
        """The same from facts."""
        return cls(facts.sources, facts.tokens)

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        arguments: Mapping[str, Any] | None = None,
        add_generation_prompt: bool = True,
    ) -> str:
        """Messages to text.

        Args:
            messages: the conversation.
            tools: descriptions of functions that the model may call.
            arguments: more variables of the template, ``enable_thinking`` say.
            add_generation_prompt: end with what comes before an answer.

        Raises:
            InputError: the template refuses these messages.
        """
        name = TOOL_USE if tools and TOOL_USE in self._compiled else DEFAULT
        variables = {
            **self._tokens,
            **(arguments or {}),
            "messages": as_templates_take(messages),
            "tools": [dict(each) for each in tools] or None,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }
        try:
            return self._compiled[name].render(variables)
        except Exception as error:  # a template is a program, and its filters raise of all kinds
            mend = "change the order or roles of the messages"
            if any(message.get("tool_calls") for message in messages):
                mend = "use a base whose template renders tool_calls, or give such a template; otherwise " + mend
            raise InputError(f"the base's chat template refuses these messages ({error})", mend) from None

    @property
    def moment(self) -> str:
        """What its text depends on beside its input: the day, where it reads the clock; else nothing."""
        return f"{_now():%Y-%m-%d}" if self._reads_clock else ""


def as_templates_take(messages: Iterable[Message]) -> list[Message]:
    """Messages without empty keys, and with reasoning under every name that templates read."""
    taken = []
    for message in messages:
        given = {key: value for key, value in message.items() if value is not None}
        reasoning = next((given[name] for name in REASONING if name in given), None)
        if reasoning is not None:
            given = {"thinking": reasoning, **given, REASONING[0]: reasoning}
        taken.append(given)
    return taken


@contextmanager
def stopped_clock() -> Iterator[datetime.datetime]:
    """Let templates that read the clock see one moment: what is compared has to be rendered at the same time."""
    moment = _now()
    token = _stopped_at.set(moment)
    try:
        yield moment
    finally:
        _stopped_at.reset(token)


def _now() -> datetime.datetime:
    return _stopped_at.get() or datetime.datetime.now()


def _tokens_in(header: GgufFile) -> dict[str, str]:
    """As edgekit wrote them; in other files by llama.cpp's numbers."""
    metadata = header.metadata
    written = metadata.get(KEY_TOKENS)
    if written is not None:
        try:
            found = json.loads(written)
        except (ValueError, TypeError, RecursionError):
            found = None
        if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
            raise InputError(f"{header.path}: {KEY_TOKENS} is no JSON object of texts", "copy or export it again")
        return found
    texts: list[str] = metadata.get("tokenizer.ggml.tokens", [])
    numbers = {name: metadata.get(f"tokenizer.ggml.{kind}_token_id") for kind, name in _GGUF_TOKENS.items()}
    return {name: texts[at] for name, at in numbers.items() if isinstance(at, int) and 0 <= at < len(texts)}


def _compiled(source: str) -> jinja2.Template:
    from jinja2 import TemplateSyntaxError

    try:
        return _environment().from_string(source)
    except Exception as error:  # Python compiles what jinja makes of it, and has limits and rules of its own
        if isinstance(error, TemplateSyntaxError):
            place = f" at line {error.lineno} ({error.message})"
        else:
            place = " (too deep)" if isinstance(error, RecursionError) else f" ({getattr(error, 'msg', error)})"
        raise InputError(
            f"the base's chat template is broken{place}",
            "use a base whose template works, or give another one as chat_template: in edgekit.yaml",
        ) from None


def _variables(source: str) -> set[str]:
    from jinja2 import meta

    return meta.find_undeclared_variables(_environment().parse(source))


@functools.lru_cache(1)
def _environment() -> jinja2.Environment:
    """Set up as transformers sets it up (``transformers.utils.chat_template_utils``)."""
    import jinja2
    from jinja2 import nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.utils import Namespace

    class Generation(Extension):
        """``{% generation %}`` marks for trainers what the assistant says: its body is rendered, in a scope."""

        tags = {"generation"}  # noqa: RUF012 - so jinja reads it

        def parse(self, parser: Parser) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

        def _body(self, caller: Any) -> Any:
            return caller()

    class Dict:
        """``dict(…)`` without the class's attributes."""

        def __call__(self, *arguments: Any, **items: Any) -> dict[Any, Any]:
            return dict(*arguments, **items)

        def fromkeys(self, *arguments: Any) -> dict[Any, Any]:
            return dict.fromkeys(*arguments)

    class PlainNamespace(Namespace):
        """A namespace without names that begin with an underscore."""

        def __init__(*arguments: Any, **items: Any) -> None:
            self, given = arguments[0], arguments[1:]
            attributes = dict(*given, **items)
            for name in attributes:
                _check_name(name)
            Namespace.__init__(self, attributes)

        def __setitem__(self, name: str, value: Any) -> None:
            _check_name(name)
            Namespace.__setitem__(self, name, value)

    def _check_name(name: Any) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"{name!r} begins with an underscore")

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals.update(
        {"raise_exception": _refuse, _CLOCK: _strftime_now, "dict": Dict(), "namespace": PlainNamespace}
    )
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes HTML, which no model was trained on."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> NoReturn:
    from jinja2 import TemplateError

    raise TemplateError(message)


def _strftime_now(layout: str) -> str:
    return _now().strftime(layout)
