"""Looks at what a chat template's calls are given, where a few characters of it can make something huge.

Everything else that a call does is bounded by the sizes of its arguments, which are looked at for all calls.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from types import GeneratorType
from typing import Any

from edgekit_runtime.prompts.budget import LARGEST, LARGEST_NUMBER, WORK, Budget, OverBudget, current

_LARGEST_ARGUMENT = 10_000  # of filters: widths and counts
_LARGEST_INDENT = 64
_SLOW = 20_000  # characters for filters that are slow, or slower than their input is long
_WIDENING = ("center", "ljust", "rjust", "zfill")
_NESTED = re.compile(r"\{[^{}]*:[^{}]*\{")  # a field whose width stands in another
_DIGITS = re.compile(r"\d+")
_NUMBERED = {"batch", "center", "indent", "round", "slice", "truncate", "urlize", "wordwrap"}
_SLOW_FILTERS = {"pprint", "striptags", "urlize", "wordwrap", "xmlattr"}
_GATHERED = {"groupby", "join", "max", "min", "sort", "sum", "unique"}  # what a generator gives them is held anyway


def check_method(
    budget: Budget, text: str, name: str, given: tuple[Any, ...], named: Mapping[str, Any]
) -> tuple[Any, ...]:
    """A text's method; returns its arguments, gathered where they came one by one."""
    every = [*given, *named.values()]
    if name in ("encode", "translate"):
        raise OverBudget(f"calls {name}(), which chat templates can't have here")
    if name == "join" and given:
        given = (_gathered(given[0]), *given[1:])
        budget.most(budget.size(given[0]) + len(text) * _length(given[0]))
    elif name == "replace" and len(given) > 1:
        _check_replace(budget, text, given)
    elif name in ("format", "format_map"):
        _check_format(budget, text, every, fields=text.count("{"), nested=bool(_NESTED.search(text)))
    elif name in _WIDENING:
        budget.most(max(_numbers(every), default=0))
    elif name == "expandtabs":
        budget.most(len(text) * max(_numbers(every), default=8))
    else:
        budget.most(len(text) * max((budget.size(each) for each in every), default=1), WORK)
    return given


def check_operation(budget: Budget, operator: str, left: Any, right: Any) -> None:
    """``left operator right``."""
    if operator == "*":
        for one, other in ((left, right), (right, left)):
            if isinstance(one, (str, list, tuple)) and isinstance(other, int):
                budget.most(len(one) * other)
        if isinstance(left, int) and isinstance(right, int):
            _check_bits(left.bit_length() + right.bit_length())
    elif operator == "**" and isinstance(left, int) and isinstance(right, int):
        _check_bits(left.bit_length() * abs(right))
    elif operator == "%" and isinstance(left, str):
        given = right if isinstance(right, tuple) else (right,)
        _check_format(budget, left, given, fields=left.count("%"), nested="*" in left)


def gated(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter or test that looks at what it is given."""

    @functools.wraps(function)
    def run(*given: Any, **named: Any) -> Any:
        budget = current()
        if name in _GATHERED:
            given = tuple(_gathered(each) for each in given)
        sizes = [budget.size(each) for each in (*given, *named.values())]
        if name in _CHECKED:
            passed = 1 if hasattr(function, "jinja_pass_arg") else 0  # jinja's own argument
            _check_filter(budget, name, given[passed:], named, max(sizes, default=0))
        return budget.made(function(*given, **named))

    return run


def _check_filter(budget: Budget, name: str, given: Sequence[Any], named: Mapping[str, Any], size: int) -> None:
    value, others = given[0] if given else None, [*given[1:], *named.values()]
    numbers = _numbers(others)
    if name in _NUMBERED:
        budget.most(max(map(abs, numbers), default=0), _LARGEST_ARGUMENT)
    if name in _SLOW_FILTERS:
        budget.most(size, _SLOW)
    if name in ("indent", "wordwrap", "xmlattr"):
        widest = max([1, *numbers, *(len(each) for each in others if isinstance(each, str))])
        budget.most(budget.size(value) * widest)
    elif name == "tojson":
        separators = [each for other in others for each in (other if isinstance(other, (list, tuple)) else [other])]
        longest = max([*numbers, *(len(each) for each in separators if isinstance(each, str))], default=0)
        budget.most(longest, _LARGEST_INDENT)
    elif name == "replace" and len(others) > 1:
        _check_replace(budget, str(value), others)
    elif name == "join":
        budget.most(budget.size(value) + _length(value) * max((budget.size(each) for each in others), default=0))
    elif name == "sum":
        budget.most(budget.size(value) * _length(value) if len(others) > 1 or "start" in named else 0, WORK)
    elif name == "format":
        text = str(value)
        _check_format(budget, text, others, fields=text.count("%"), nested="*" in text)


_CHECKED = {*_NUMBERED, *_SLOW_FILTERS, "format", "join", "replace", "sum", "tojson"}


def _check_replace(budget: Budget, text: str, given: Sequence[Any]) -> None:
    old, new = str(given[0]), str(given[1])
    budget.most(len(text) + text.count(old) * max(0, len(new) - len(old)))


def _check_format(budget: Budget, text: str, given: Sequence[Any], *, fields: int, nested: bool) -> None:
    """Widths and precisions stand in the text, or in arguments where the text asks for them there."""
    if any(len(digits) > len(str(LARGEST)) for digits in _DIGITS.findall(text)):
        raise OverBudget(f"asks for a width of more than {LARGEST}")
    widths = sum(map(int, _DIGITS.findall(text)))
    widest = max((budget.size(each) for each in given), default=0)
    if nested:
        widest += max(map(abs, _numbers_within(given)), default=0)
    budget.most(len(text) + widths + fields * widest)


def _check_bits(bits: int) -> None:
    if bits > LARGEST_NUMBER:
        raise OverBudget(f"makes a number of more than {LARGEST_NUMBER} bits")


def _numbers(values: Sequence[Any]) -> list[int]:
    return [int(each) for each in values if isinstance(each, int)]


def _numbers_within(values: Sequence[Any]) -> list[int]:
    """Numbers, and those in lists and objects, which a format can ask for too."""
    found = _numbers(values)
    for each in values:
        if isinstance(each, Mapping):
            found += _numbers_within(list(each.values()))
        elif isinstance(each, (list, tuple)):
            found += _numbers_within(each)
    return found


def _gathered(value: Any) -> Any:
    return list(value) if isinstance(value, GeneratorType) else value


def _length(value: Any) -> int:
    return len(value) if hasattr(value, "__len__") else 1
