"""Which fields of requests this service knows, and what becomes of each.

A field is done, or taken with those values alone that change nothing, or noted; everything else is refused by name.
A field that stands in no table is answered without, and named in the header :data:`IGNORED`.  docs/api.md is made of
these tables; those of a dialect stand beside it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edgekit_runtime.errors import InputError

IGNORED = "X-Edgekit-Ignored"
MOST_NAMED, LONGEST_NAME = 16, 48  # names in that header, and signs of each
_UNSAFE = re.compile(r"[^A-Za-z0-9_.$-]")
NOTHING: tuple[Any, ...] = ("", [], {}, False)  # what clients send for nothing


@dataclass(frozen=True)
class Parameter:
    """A field.

    Attributes:
        name: how it is spelt.
        does: what it means here, for the documentation.
        only: the values that are taken, where others are refused; None where any sound value is.
        instead: what to do when it is refused.
    """

    name: str
    does: str
    only: tuple[Any, ...] | None = None
    instead: str = "leave it out"

    def takes(self, value: Any) -> bool:
        """Whether a value is taken; null always is."""
        return self.only is None or value is None or any(_same(value, each) for each in self.only)


Table = Mapping[str, Parameter]


def table(*groups: Iterable[Parameter]) -> Table:
    """Parameters by name; a later one takes the place of an earlier one."""
    return {each.name: each for group in groups for each in group}


def neutral(**values: Any) -> list[Parameter]:
    """Fields of others' services that are not done here: null and these values change nothing."""
    return [
        Parameter(name, "not available", each or NOTHING if isinstance(each, tuple) else (each,))
        for name, each in values.items()
    ]


def unavailable(**instead: str) -> list[Parameter]:
    """Fields that are not done here, each with what to do instead."""
    return [Parameter(name, "not available", NOTHING, advice) for name, advice in instead.items()]


LOAD = table(
    [
        Parameter("lora_name", "the name that requests use"),
        Parameter("lora_path", "the adapter's file on the server"),
        Parameter("load_inplace", "take the place of the adapter that has this name"),
        Parameter("allow_downgrade", "and be an older version than it"),
    ],
    neutral(base_model_name=(), is_3d_lora_weight=False),
)
UNLOAD = table([Parameter("lora_name", "the adapter")], neutral(lora_int_id=()))
_CONVERSATION = [
    Parameter("chat_template_kwargs", "variables of the base's template"),
    Parameter("tools", "functions that the prompt tells of"),
    Parameter("model", "the adapter whose system prompt applies, or `base`"),
    Parameter("messages", "a conversation"),
    Parameter("add_generation_prompt", "false: its prompt ends with the last message"),
    Parameter("continue_final_message", "its prompt ends with the text of the last message"),
]
TEMPLATE = table(_CONVERSATION, neutral(chat_template=(), documents=()))
TOKENIZE = table(
    _CONVERSATION,
    neutral(chat_template=(), documents=(), mm_processor_kwargs=()),
    [
        Parameter("prompt", "a text, as at vLLM"),
        Parameter("content", "a text, as at llama-server"),
        Parameter("add_special_tokens", "of `prompt`: false leaves BOS out"),
        Parameter("add_special", "of `content`: true puts BOS before it"),
        Parameter("parse_special", "false: control tokens that are spelt in a text are none"),
        Parameter("return_token_strs", "the text of each token beside"),
        Parameter("with_pieces", "each token with its text, as at llama-server"),
    ],
)
DETOKENIZE = table([Parameter("model", "taken; all have the base's tokens"), Parameter("tokens", "token ids")])


def is_nothing(parameter: Parameter) -> bool:
    """Whether a parameter is taken with no value at all, but for those that say nothing."""
    return parameter.only == NOTHING


def check(document: Mapping[str, Any], known: Table, within: str = "") -> tuple[str, ...]:
    """Look at the fields of a body before any is read.

    Args:
        document: the body, or an object in it.
        known: what this service knows of it.
        within: the name of that object.

    Returns:
        The names of fields that nobody knows, to be told to the client.

    Raises:
        InputError: a field that is known and not done here, or not with this value.
    """
    unknown = []
    for name, value in document.items():
        parameter = known.get(name)
        if parameter is None:
            unknown.append(f"{within}.{name}" if within else name)
        elif parameter.only is not None and not parameter.takes(value):
            _refuse(f"{within}.{name}" if within else name, parameter.only, parameter.instead)
    return tuple(unknown)


def _same(value: Any, other: Any) -> bool:
    """Whether two values are the same JSON; 1 and 1.0 are, 1 and true are not."""
    return isinstance(value, bool) == isinstance(other, bool) and bool(value == other)


def _refuse(name: str, only: tuple[Any, ...], instead: str) -> None:
    if only == NOTHING:
        raise InputError(f"{name} is not available", instead)
    words = " or ".join(json.dumps(each) for each in only)
    raise InputError(f"{name} has to be {words} here", instead)


def header_of(ignored: Iterable[str]) -> dict[str, str]:
    """The header that names what was left out of account; none where that is nothing.

    Names come from anywhere: what may not stand in a header is written as ``?``, and there is an end to them.
    """
    names = sorted(set(ignored))
    if not names:
        return {}
    told = [_UNSAFE.sub("?", name[:LONGEST_NAME]) or "?" for name in names[:MOST_NAMED]]
    left = len(names) - MOST_NAMED
    return {IGNORED: ", ".join([*told, f"and {left} more"] if left > 0 else told)}
