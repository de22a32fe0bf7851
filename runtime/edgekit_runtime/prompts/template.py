"""Chat templates as transformers renders them (``apply_chat_template``): jinja, its names and its special tokens.

Templates come from files, so they run in jinja's immutable sandbox, within a budget (``template_budget``).
"""

from __future__ import annotations

import datetime
import hashlib
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgekit_runtime.errors import InputError, one_line
from edgekit_runtime.files.strict_json import json_object
from edgekit_runtime.formats.gguf import GgufFile
from edgekit_runtime.prompts.budget import OverBudget, spending

if TYPE_CHECKING:
    from edgekit_runtime.prompts.environment import Compiled

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
_A_TOOL = ({"type": "function", "function": {"name": "f", "description": "", "parameters": {"type": "object"}}},)
_LONGEST_REASON = 500  # characters
_stopped_at: ContextVar[datetime.datetime | None] = ContextVar("stopped_at", default=None)


class TemplateOverBudget(InputError):
    """A template that takes too much; no conversation mends that."""


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
        return cls(texts, tokens_in(header))

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
        literals: texts that stand in its expressions.
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
        read = {name: _compiled(sources[name]) for name in (DEFAULT, TOOL_USE) if name in sources}
        self._compiled = {name: each.template for name, each in read.items()}
        self.source = sources[DEFAULT]
        self._reads_clock = any(_CLOCK in sources[name] for name in self._compiled)
        self.variables = frozenset[str]().union(*(each.variables for each in read.values())) - {_CLOCK}
        self.literals = frozenset[str]().union(*(each.literals for each in read.values()))

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
            TemplateOverBudget: it takes more time or memory, or writes more, than a template may.
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
            with spending():
                text = self._compiled[name].render(variables)
            text.encode()
            return text
        except OverBudget as error:
            raise _too_much(error) from None
        except UnicodeEncodeError:
            said = "the base's chat template writes half a character, which is no text"
            raise InputError(said, "use a base with another template") from None
        except Exception as error:  # a program from a file may fail in any way
            hint = "change the order or roles of the messages"
            if any(message.get("tool_calls") for message in messages):
                hint = "use a base whose template renders tool_calls, or give such a template; otherwise " + hint
            raise InputError(f"the base's chat template refuses these messages ({_reason(error)})", hint) from None

    def try_out(self) -> None:
        """Render a question, as opening a bundle does: a template that takes too much for that is none.

        Raises:
            TemplateOverBudget: it does.
        """
        for tools in ((), _A_TOOL):
            try:
                self.render([{"role": "user", "content": "?"}], tools=tools)
            except TemplateOverBudget:
                raise
            except InputError:  # it wants other messages
                continue

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


def tokens_in(header: GgufFile) -> dict[str, str]:
    """Special tokens by the name of their variable: as edgekit wrote them; in other files by llama.cpp's numbers.

    Raises:
        InputError: they are no texts.
    """
    metadata = header.metadata
    written = metadata.get(KEY_TOKENS)
    if written is not None:
        found = json_object(written) if isinstance(written, str) else None
        if found is None or not all(isinstance(text, str) for text in found.values()):
            raise InputError(f"{header.path}: {KEY_TOKENS} is no JSON object of texts", "copy or export it again")
        return found
    texts: list[str] = metadata.get("tokenizer.ggml.tokens", [])
    numbers = {name: metadata.get(f"tokenizer.ggml.{kind}_token_id") for kind, name in _GGUF_TOKENS.items()}
    return {name: texts[at] for name, at in numbers.items() if isinstance(at, int) and 0 <= at < len(texts)}


def _compiled(source: str) -> Compiled:
    from jinja2 import TemplateSyntaxError

    from edgekit_runtime.prompts.environment import compiled

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's on the code that jinja makes are for nobody
            return compiled(source, {_CLOCK: _strftime_now})
    except OverBudget as error:
        raise _too_much(error) from None
    except Exception as error:  # jinja leaves to Python's compiler what stands where it can't, or is too deep
        place = f" at line {error.lineno}" if isinstance(error, TemplateSyntaxError) else ""
        raise InputError(
            f"the base's chat template is broken{place} ({_reason(error)})",
            "use a base whose template works, or give another one as chat_template: in edgekit.yaml",
        ) from None


def _too_much(error: OverBudget) -> TemplateOverBudget:
    return TemplateOverBudget(
        f"the base's chat template {error}",
        "use a base with another template, or give one as chat_template: in edgekit.yaml",
    )


def _reason(error: Exception) -> str:
    """In one line, and not without end: a template may have written it."""
    if isinstance(error, RecursionError):
        return "too deep"
    from jinja2 import TemplateSyntaxError

    if isinstance(error, TemplateSyntaxError):
        said = error.message  # as text it is many lines of the template
    else:
        said = error.msg if isinstance(error, SyntaxError) else str(error)
    text = one_line(said or type(error).__name__)
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}…"


def _strftime_now(layout: str) -> str:
    from edgekit_runtime.prompts.environment import formatted

    return formatted(_now(), layout)
