"""Which keywords of JSON Schema are held: those of the tables here, and nothing else is taken.

llguidance refuses many of the others by itself.  It passes over some (``contentEncoding``, keywords that it doesn't
know), and it holds some only in part; what is known of that stands here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from edgekit_runtime.errors import SHOWN, InputError

# Say nothing of what fits.
NOTES = frozenset({
    *("title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly", "$comment"),
    *("discriminator", "externalDocs", "xml", "nullable"),  # OpenAPI's
})  # fmt: skip
HELD = frozenset({
    *("type", "enum", "const"),
    *("$ref", "$schema", "$id", "id", "$anchor"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    *("minLength", "maxLength", "pattern", "format"),
    *("minItems", "maxItems", "required", "minProperties", "maxProperties"),
})  # fmt: skip
# What holds schemas: one, a list of them, named ones.
ONE = frozenset({"additionalProperties", "additionalItems"})
LISTS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions"})
EITHER = frozenset({"items"})  # one, or a list before draft 2020-12

# As patterns, because llguidance's own take 29 February of any year and a 61st second in any minute.  Without years
# before 1000 and leap seconds, which few programs read.
_LONG, _SHORT = "(0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])", "(0[469]|11)-(0[1-9]|[12][0-9]|30)"
_FOURTHS = "0[48]|[2468][048]|[13579][26]"
_LEAP = f"([1-9][0-9]({_FOURTHS})|([2468][048]|[13579][26])00)"
_DATE = f"([1-9][0-9]{{3}}-({_LONG}|{_SHORT}|02-(0[1-9]|1[0-9]|2[0-8]))|{_LEAP}-02-29)"
_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
DATES = {"date": f"^{_DATE}$", "time": f"^{_TIME}$", "date-time": f"^{_DATE}T{_TIME}$"}
FORMATS = frozenset({*DATES, "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uuid"})

EXACT = 2**53  # llguidance counts in float64
NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "enum", "const")
CLASS = re.compile(r"\\.|\[\^?\]?((?:\\.|[^\]\\])*)\]", re.DOTALL)
# In a class of characters these are signs to ECMA-262, but operators to Rust's regular expressions.
OPERATORS = ("[", "&&", "--", "~~")


def holdable(schema: Any) -> Any:
    """A schema as llguidance gets it: the same meaning, without keywords that ask for nothing, with dates as patterns.

    Raises:
        InputError: it is no schema, or asks for what can't be held; names the keyword and its place.
    """
    if schema is False:
        raise InputError("the schema can't be held (it is false: nothing fits)", "write another")
    return {} if schema is True else _node(schema, "#")


def _node(node: Any, place: str) -> Any:
    if isinstance(node, bool):
        return node
    if not isinstance(node, dict):
        raise InputError(f"the schema has no schema at {_shown(place)}", "write an object, true or false there")
    found: dict[str, Any] = {}
    for name, value in node.items():
        _check(name, value, node, place)
        if name not in NOTES and not _asks_nothing(name, value, node):
            found[name] = _inner(name, value, f"{place}/{name}")
    pattern = DATES.get(found.get("format", ""))
    if pattern is not None:
        del found["format"]
        if "pattern" in found:
            found["allOf"] = [*found.get("allOf", ()), {"pattern": pattern}]
        else:
            found["pattern"] = pattern
    return found


def inner_schemas(node: dict[str, Any]) -> list[Any]:
    """The schemas directly inside one that :func:`holdable` has read."""
    found: list[Any] = []
    for name, value in node.items():
        if name in NAMED:
            found += value.values()
        elif name in LISTS or (name in EITHER and isinstance(value, list)):
            found += value
        elif name in ONE | EITHER:
            found.append(value)
    return found


def _inner(name: str, value: Any, place: str) -> Any:
    if name in ONE or (name in EITHER and not isinstance(value, list)):
        return _node(value, place)
    if name in LISTS or name in EITHER:
        if not isinstance(value, list):
            raise InputError(f"the schema's {_shown(place)} has to be a list", "correct it")
        return [_node(each, f"{place}/{at}") for at, each in enumerate(value)]
    if name in NAMED:
        if not isinstance(value, dict):
            raise InputError(f"the schema's {_shown(place)} has to be an object", "correct it")
        return {key: _node(each, f"{place}/{key}") for key, each in value.items()}
    return value


def _check(name: str, value: Any, node: dict[str, Any], place: str) -> None:
    if _asks_nothing(name, value, node):
        return
    if name not in NOTES | HELD | ONE | LISTS | NAMED | EITHER:
        raise _refused(name, place)
    if name == "format" and not (isinstance(value, str) and value in FORMATS):
        known = ", ".join(sorted(FORMATS))
        raise InputError(
            f"the schema asks for format {str(value)[:SHOWN]!r} at {_shown(place)}, which can't be held",
            f"leave it out, or use {known}",
        )
    if name in NUMBERS and any(abs(each) > EXACT for each in _whole_numbers(value)):
        raise InputError(
            f"the schema's {name} at {_shown(place)} has a whole number beyond 2^53, which can't be held exactly",
            "use a smaller one, or text",
        )
    if name == "minProperties":
        # A name twice would count as two properties.
        raise InputError(
            f"the schema asks for minProperties at {_shown(place)}, which can't be held", "list names in required"
        )
    patterns = (value,) if name == "pattern" else value if name == "patternProperties" else ()
    for pattern in patterns if isinstance(patterns, tuple | dict) else ():
        inside = [found[1] or "" for found in CLASS.finditer(str(pattern))]
        if any(sign in each for each in inside for sign in OPERATORS):
            raise InputError(
                f"the schema's {name} at {_shown(place)} has one of {' '.join(OPERATORS)} in [], which can't be held",
                "write a backslash before it",
            )


def _asks_nothing(name: str, value: Any, node: dict[str, Any]) -> bool:
    if name == "minProperties":
        required = node.get("required")
        names = {each for each in required if isinstance(each, str)} if isinstance(required, list) else set()
        return isinstance(value, int) and value <= len(names)
    return name == "uniqueItems" and value is False


def _whole_numbers(value: Any) -> Iterator[int]:
    if isinstance(value, int):
        yield value
    elif isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _whole_numbers(each)


def _refused(name: str, place: str) -> InputError:
    return InputError(
        f"the schema asks for {_shown(name)} at {_shown(place)}, which can't be held",
        "leave it out, or say it with other keywords",
    )


def _shown(text: object) -> str:
    text = str(text)
    return ascii(text if len(text) <= SHOWN else f"{text[:SHOWN]}...")[1:-1]
