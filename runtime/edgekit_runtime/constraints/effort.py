"""What takes llguidance seconds to minutes to compile, refused before: it has no limit of its own there."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from edgekit_runtime.constraints.narrowing import is_plain, nodes_of
from edgekit_runtime.errors import InputError

MOST_TOGETHER = 12  # patterns for one text: each more doubles the time
MOST_NAMES = 64  # patterns of names: each is compared with each
MOST_MULTIPLE = 10_000  # the automaton has a state for each remainder
LITERAL = re.compile(r'"(?:\\.|[^"\\\n])*"')
JSON = re.compile(r"%\s*json")


def check_schema_effort(schema: Any) -> None:
    """Raise InputError for a schema, as :func:`~edgekit_runtime.constraints.keywords.holdable` gives it."""
    nodes = [node for node in nodes_of(schema) if isinstance(node, dict)]
    names = sum(len(node.get("patternProperties", ())) for node in nodes)
    _at_most(names, MOST_NAMES, "patterns in patternProperties")
    multiples = {node["multipleOf"] for node in nodes if _is_number(node.get("multipleOf"))}
    states = [_digits(each) for each in multiples]
    together = not all(map(is_plain, nodes))
    if together:  # allOf and the like may ask for all of them in one place
        patterns = {str(node["pattern"]) for node in nodes if "pattern" in node}
        _at_most(
            len(patterns),
            MOST_TOGETHER,
            "different patterns in a schema with allOf or oneOf, or with $ref or anyOf beside more",
        )
        product = 1
        for each in states:
            product = min(product * each, MOST_MULTIPLE**2)
        states.append(product)
    largest = max(states, default=0)
    if largest > MOST_MULTIPLE:
        what = "all multipleOf together ask for multiples" if together else "multipleOf asks for a multiple"
        raise InputError(
            f"the schema can't be held ({what} of more than {MOST_MULTIPLE} units of the last digit)",
            "use a smaller one",
        )


def check_grammar_effort(grammar: str) -> None:
    """Raise InputError for GBNF or Lark."""
    text = LITERAL.sub("", grammar)
    _at_most(text.count("&"), MOST_TOGETHER, "& in the grammar")
    if JSON.search(text):
        raise InputError("the grammar can't be held (it has a JSON schema inside)", "send the schema instead")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _digits(value: float) -> int:
    """The number without its point: 0.25 counts as 25."""
    _, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    number = int("".join(map(str, digits)))
    return number * 10 ** min(exponent, 20) if isinstance(exponent, int) and exponent > 0 else number


def _at_most(count: int, most: int, what: str) -> None:
    if count > most:
        raise InputError(f"there are {count} {what}", f"use at most {most}")
