"""What an answer has to follow, in the spellings of OpenAI, llama.cpp's server and vLLM."""

from __future__ import annotations

import json
from typing import Any

from edgekit_runtime.errors import SHOWN, InputError
from edgekit_runtime.prompts.bounds import check_form, check_schema

ANY_OBJECT = {"type": "object"}
# vLLM's earlier spelling, and llama.cpp's.
FIELDS = {
    **{"json_schema": "schema", "regex": "regex", "grammar": "grammar", "choice": "choice"},
    **{"guided_json": "schema", "guided_regex": "regex", "guided_grammar": "grammar", "guided_choice": "choice"},
}
STRUCTURED = {"json": "schema", "regex": "regex", "grammar": "grammar", "choice": "choice"}  # within structured_outputs


def read_form(document: dict[str, Any]) -> dict[str, Any]:
    """The argument of Runtime.stream that a body asks for, if any: schema, regex, grammar or choice.

    Raises:
        InputError: several, or one that is malformed.
    """
    found: dict[str, tuple[str, Any]] = {
        field: (form, document[field]) for field, form in FIELDS.items() if document.get(field) is not None
    }
    schema = _response_format(document.get("response_format"))
    if schema is not None:
        found["response_format"] = ("schema", schema)
    for name, wanted in _structured_outputs(document.get("structured_outputs")).items():
        found[f"structured_outputs.{name}"] = wanted
    if len(found) > 1:
        raise InputError(f"{' and '.join(found)} can't hold for one answer together", "send one of them")
    return {form: checked(field, form, value) for field, (form, value) in found.items()}


def _response_format(wanted: Any) -> Any:
    """OpenAI's, with the schema where it has it, or beside the type as in llama.cpp."""
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if wanted is None or kind == "text":
        return None
    if kind not in ("json_object", "json_schema"):
        raise InputError("response_format is not one of text, json_object, json_schema", "set its type to one of them")
    named = wanted.get("json_schema")
    schemas = [each["schema"] for each in (wanted, named) if isinstance(each, dict) and each.get("schema") is not None]
    if len(schemas) > 1:
        raise InputError("response_format has two schemas", "send one of them")
    if schemas:
        return schemas[0]
    if kind == "json_schema":
        raise InputError("response_format has no schema", "put it at json_schema.schema")
    return ANY_OBJECT


def _structured_outputs(wanted: Any) -> dict[str, tuple[str, Any]]:
    """The object that vLLM takes."""
    if wanted is None:
        return {}
    if not isinstance(wanted, dict):
        raise InputError("structured_outputs has to be an object", f"send one with one of {', '.join(STRUCTURED)}")
    found: dict[str, tuple[str, Any]] = {}
    for name, value in wanted.items():
        if value is None or value is False:
            continue
        if name == "json_object" and value is True:
            found[name] = ("schema", ANY_OBJECT)
        elif name in STRUCTURED:
            found[name] = (STRUCTURED[name], value)
        else:
            raise InputError(
                f"structured_outputs.{name[:SHOWN]} is not available",
                f"use one of json_object, {', '.join(STRUCTURED)}",
            )
    return found


def checked(field: str, form: str, value: Any) -> Any:
    """What an answer has to follow, as the runtime takes it.

    Args:
        field: where it stands, for errors.
        form: ``schema``, ``regex``, ``grammar`` or ``choice``.
        value: what stands there.

    Raises:
        InputError: it is malformed, or too large.
    """
    if form == "schema":
        if isinstance(value, str):
            check_form(form, value)
            try:
                value = json.loads(value)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{field} is no JSON ({error})", "send the schema as an object") from None
        if not isinstance(value, dict | bool):
            raise InputError(f"{field} has to be a JSON schema", "send it as an object")
        check_schema(value)
    elif form == "choice":
        if not isinstance(value, list) or not value or not all(isinstance(each, str) for each in value):
            raise InputError(f"{field} has to be a list of texts", 'send ["yes", "no"], say')
        check_form(form, *value)
    else:
        if not isinstance(value, str):
            raise InputError(f"{field} has to be text", "send it in quotes")
        check_form(form, value)
    return value
