"""Do answers keep to a JSON schema?  And what of a model's answer is the JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from edgekit.data.json_file import parse_json
from edgekit_runtime.errors import InputError

_SHOWN = 120
ValueJudge = Callable[[Any], str | None]


def schema_judge(schema: Mapping[str, Any] | None) -> Callable[[str], str | None]:
    """What is wrong with an answer, in a line; None where it keeps to ``schema`` (without one, always).

    Raises:
        InputError: the schema is none.
    """
    if schema is None:
        return lambda _: None
    judge = value_judge(schema)

    def judge_text(answer: str) -> str | None:
        try:
            value = parse_json(answer)
        except ValueError as error:
            return f"the answer is no JSON ({error})"
        return judge(value)

    return judge_text


def value_judge(schema: Mapping[str, Any] | None) -> ValueJudge:
    """The same for values of JSON.

    Raises:
        InputError: the schema is none.
    """
    if schema is None:
        return lambda _: None
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError, best_match
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise InputError(f"the schema is no JSON schema ({error.message[:_SHOWN]})", "correct it") from None
    validator = Draft202012Validator(schema, registry=Registry())

    def judge(value: Any) -> str | None:
        try:
            wrong = best_match(validator.iter_errors(value))
        except Unresolvable as error:  # nothing is fetched
            raise InputError(f"the schema refers to {error.ref!r}, which is not in it", "put it under $defs") from None
        if wrong is None:
            return None
        message = wrong.message if len(wrong.message) <= _SHOWN else f"{wrong.message[:_SHOWN]}…"
        place = ".".join(map(str, wrong.absolute_path))
        return f"{place}: {message}" if place else message

    return judge


def unfenced(text: str) -> str:
    """JSON without the fence of Markdown that models put around it."""
    lines = text.splitlines()
    fenced = len(lines) > 2 and lines[0].startswith("```") and lines[-1].strip() == "```"
    return "\n".join(lines[1:-1]) if fenced else text
