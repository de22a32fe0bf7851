"""From what a request asks an answer to follow to llguidance's grammar."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

from edgekit_runtime.constraints.effort import check_grammar_effort, check_schema_effort
from edgekit_runtime.constraints.keywords import holdable
from edgekit_runtime.constraints.library import llguidance
from edgekit_runtime.constraints.matcher import Matcher
from edgekit_runtime.constraints.narrowing import narrowed
from edgekit_runtime.constraints.tokens import Tokens
from edgekit_runtime.errors import InputError, UsageError

FORMS = ("schema", "regex", "grammar", "choice")
# White space between the tokens of JSON: models that know no end would fill an answer with it.
SPACE = r"( |\n[ \t]{0,20})"
# Without \u, which could spell a property's name in a second way.
ESCAPES = '"\\bfnrt'
OPTIONS = {"whitespace_pattern": SPACE, "json_allowed_escapes": ESCAPES}
FIRST_STEPS = 16  # bytes of an answer that are tried
BLANK, END = 0x20, 256


def compiled(
    *,
    schema: dict[str, Any] | bool | None = None,
    regex: str | None = None,
    grammar: str | None = None,
    choice: Sequence[str] | None = None,
) -> str | None:
    """A grammar of llguidance's for what an answer has to follow; None when that is nothing.

    Args:
        schema: a JSON schema; the answer is JSON that fits.
        regex: a regular expression of Rust's kind that the whole answer matches.
        grammar: GBNF, or llguidance's dialect of Lark.
        choice: the answer is one of these texts.

    Raises:
        UsageError: several at once.
        InputError: it can't be held, or llguidance is not installed.
    """
    given = [name for name, each in zip(FORMS, (schema, regex, grammar, choice), strict=True) if each is not None]
    if not given:
        return None
    if len(given) > 1:
        raise UsageError(f"an answer can't follow {' and '.join(given)} at once", "give one of them")
    made = _made(schema, regex, grammar, choice)
    _try(made, given[0])
    return made


def check_schema(schema: dict[str, Any] | bool) -> None:
    """Raise InputError for a JSON schema that answers can't be held to; the message says why."""
    compiled(schema=schema)


def held_schema(schema: Any) -> Any:
    """A schema of which nothing is left out, as llguidance gets it.

    Raises:
        InputError: answers can't be held to it; names the keyword.
    """
    try:
        held = holdable(json.loads(json.dumps(schema, allow_nan=False)))
        check_schema_effort(held)
        return narrowed(held)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the schema is no JSON ({error})", "correct it") from None


def inline_schema(schema: Any) -> str:
    """A schema as it stands behind ``%json`` in a grammar.

    Raises:
        InputError: as :func:`held_schema`.
    """
    held = held_schema(schema)
    return json.dumps({**(held if isinstance(held, dict) else {}), "x-guidance": OPTIONS}, ensure_ascii=False)


def compiled_rules(grammar: str, tried: str, what: str) -> str:
    """A grammar of llguidance's from one of ours in its dialect of Lark.

    Args:
        grammar: with a base's control tokens by their numbers.
        tried: the same with their texts, whose first steps are followed here.
        what: its name in errors.

    Raises:
        InputError: it can't be held, or llguidance is not installed.
    """
    module = llguidance()
    _try(str(module.grammar_from("grammar", tried)), what)
    return str(module.grammar_from("grammar", grammar))


def _made(
    schema: dict[str, Any] | bool | None, regex: str | None, grammar: str | None, choice: Sequence[str] | None
) -> str:
    module = llguidance()
    if schema is not None:
        return str(module.LLMatcher.grammar_from_json_schema(json.dumps(held_schema(schema)), overrides=OPTIONS))
    if regex is not None:
        return str(module.LLMatcher.grammar_from_regex(regex))
    if grammar is not None:
        check_grammar_effort(grammar)
    try:
        if choice is not None:
            return str(module.grammar_from("choice", json.dumps(list(choice))))
        return str(module.grammar_from("grammar", grammar))
    except Exception as error:  # the converter of GBNF raises what comes
        raise InputError(f"the grammar can't be read ({' '.join(str(error).split())[:300]})", "correct it") from None


def _try(grammar: str, what: str) -> None:
    """Follow the first steps of an answer, where what is too much for llguidance shows."""
    matcher = Matcher(_bytes(), grammar, what)
    for _ in range(FIRST_STEPS):
        allowed = matcher.allowed().tolist()
        token = next((each for each in allowed if each > BLANK), allowed[0])
        if token == END:
            return
        matcher.take(token)


@cache
def _bytes() -> Tokens:
    """A vocabulary that belongs to no base: all bytes, and an end."""
    pieces = [*(bytes([each]) for each in range(END)), b"end"]
    return Tokens(pieces, control=[END], ends=[END], tokenize=lambda text: list(text.encode()))
