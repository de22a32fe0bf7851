"""Arguments of calls in the spellings that chat templates have for them, read back to values.

Whoever reads raises ValueError or RecursionError for what is spelt otherwise: the text comes from models.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Container
from typing import Any, NoReturn

DEEPEST = 64
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w.])")
_KEYWORD = re.compile(r"[^\W\d][\w.-]*")
_BARE_KEY = r"[^\s:,{}\[\]]+"
_STRING = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'", re.DOTALL)
_ESCAPED = {"\n": "\\n", "\r": "\\r", "\0": "\\x00"}
_WORDS = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}
_WORD = re.compile(rf"(?:{'|'.join(_WORDS)})(?!\w)")
_SPACE = re.compile(r"\s*")
Found = tuple[Any, int]  # a value and where it ends


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_number)


def read_json(text: str, at: int) -> Found:
    """JSON that begins at ``at``; infinity and half a character are none."""
    value, end = _DECODER.raw_decode(text, at)
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    return value, end


def read_object(text: str, at: int) -> tuple[dict[str, Any], int]:
    """The JSON object that begins at ``at``."""
    value, end = read_json(text, at)
    if not isinstance(value, dict):
        raise ValueError("no object")
    return value, end


def whole_object(text: str) -> dict[str, Any]:
    """The JSON object that a text is; an empty text is an empty one."""
    text = text.strip() or "{}"
    value, end = read_object(text, 0)
    if end < len(text):
        raise ValueError("more than an object")
    return value


def read_keywords(text: str, at: int) -> tuple[dict[str, Any], int]:
    """``a="x", b=[1, True]`` up to the bracket that closes them; values as Python or as JSON spell them."""
    return _pairs(text, at, ")", "=", _KEYWORD, lambda where: _literal(text, where, 0))


def read_bare(text: str, at: int, quote: str) -> tuple[dict[str, Any], int]:
    """``a:<quote>x<quote>,b:[1,true]`` up to the brace that closes them: keys are bare, texts stand in ``quote``."""
    return _pairs(text, at, "}", ":", _bare_key(quote), lambda where: _bare(text, where, quote, 0))


def read_tagged(text: str, at: int, tags: tuple[str, str, str], texts: Container[str]) -> tuple[dict[str, Any], int]:
    """``<parameter=a>x</parameter>`` one after another, as many as there are.

    Args:
        text: an answer.
        at: where the first one may begin.
        tags: what stands before a name, between name and value, and behind the value.
        texts: names of arguments that are texts, whatever they look like.
    """
    before, between, behind = tags
    found: dict[str, Any] = {}
    while before and text.startswith(before, at):
        middle = text.index(between, at + len(before))
        name, begin = text[at + len(before) : middle], middle + len(between)
        end = text.index(behind, begin)
        if name in found:
            raise ValueError("one twice")
        found[name] = text[begin:end] if name in texts else _untyped(text[begin:end])
        at = end + len(behind)
    json.dumps(found, ensure_ascii=False).encode()
    return found, at


def _untyped(spelt: str) -> Any:
    """What has no quotes: a value where it looks like one, else a text."""
    try:
        value, end = _literal(spelt, 0, 0)
    except ValueError:
        return spelt
    return spelt if end < len(spelt) or isinstance(value, str) else value


def _bare_key(quote: str) -> re.Pattern[str]:
    return re.compile(f"{re.escape(quote)}(.*?){re.escape(quote)}|{_BARE_KEY}", re.DOTALL)


def _pairs(
    text: str, at: int, close: str, sign: str, key: re.Pattern[str], value: Callable[[int], Found]
) -> tuple[dict[str, Any], int]:
    found: dict[str, Any] = {}
    at = _skip(text, at)
    while not text.startswith(close, at):
        if found:
            at = _after(text, at, ",")
        match = key.match(text, at)
        name = None if match is None else match[1] if match.lastindex else match[0]
        if match is None or name is None or name in found:
            raise ValueError("no name, or one twice")
        found[name], at = value(_after(text, match.end(), sign))
        at = _skip(text, at)
    return found, at


def _items(text: str, at: int, value: Callable[[int], Found]) -> tuple[list[Any], int]:
    found: list[Any] = []
    at = _skip(text, at)
    while not text.startswith("]", at):
        if found:
            at = _after(text, at, ",")
        item, at = value(at)
        found.append(item)
        at = _skip(text, at)
    return found, at + 1


def _literal(text: str, at: int, depth: int) -> Found:
    """A value as Python or as JSON spell it."""
    if depth > DEEPEST:
        raise ValueError("too deep")
    if text.startswith("[", at):
        return _items(text, at + 1, lambda where: _literal(text, where, depth + 1))
    if text.startswith("{", at):
        return _mapping(text, at + 1, depth)
    string = _STRING.match(text, at)
    return _plain(text, at) if string is None else (_unquoted(string[0]), string.end())


def _mapping(text: str, at: int, depth: int) -> Found:
    found: dict[str, Any] = {}
    at = _skip(text, at)
    while not text.startswith("}", at):
        if found:
            at = _after(text, at, ",")
        key = _STRING.match(text, at)
        if key is None:
            raise ValueError("no text as key")
        found[_unquoted(key[0])], at = _literal(text, _after(text, key.end(), ":"), depth + 1)
        at = _skip(text, at)
    return found, at + 1


def _unquoted(spelt: str) -> str:
    """A text in quotes; what is JSON is read as such, as both spell the same there but for pairs of surrogates."""
    try:
        value = json.loads(spelt)
    except ValueError:
        for sign, escaped in _ESCAPED.items():  # templates may leave them as they are
            spelt = spelt.replace(sign, escaped)
        try:
            value = ast.literal_eval(spelt)
        except (SyntaxError, MemoryError):
            raise ValueError("no text") from None
    str(value).encode()
    return str(value)


def _bare(text: str, at: int, quote: str, depth: int) -> Found:
    if depth > DEEPEST:
        raise ValueError("too deep")
    if text.startswith(quote, at):
        begin = at + len(quote)
        end = text.index(quote, begin)
        text[begin:end].encode()
        return text[begin:end], end + len(quote)
    if text.startswith("[", at):
        return _items(text, at + 1, lambda where: _bare(text, where, quote, depth + 1))
    if text.startswith("{", at):
        inner = _pairs(text, at + 1, "}", ":", _bare_key(quote), lambda where: _bare(text, where, quote, depth + 1))
        return inner[0], inner[1] + 1
    return _plain(text, at)


def _plain(text: str, at: int) -> Found:
    """A number, or true, false, null."""
    word = _WORD.match(text, at)
    if word is not None:
        return _WORDS[word[0]], word.end()
    number = _NUMBER.match(text, at)
    if number is None:
        raise ValueError("no value")
    value, _ = read_json(number[0], 0)
    return value, number.end()


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def _after(text: str, at: int, sign: str) -> int:
    """Behind ``sign`` and the white space around it."""
    at = _skip(text, at)
    if not text.startswith(sign, at):
        raise ValueError(f"no {sign}")
    return _skip(text, at + len(sign))
