"""Functions that a model may call, and its calls, in the one form that chat templates take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekit.data.values import unpacked
from edgekit_runtime.errors import InputError

_CALL_KEYS = {"name", "arguments"}
_ENVELOPE_KEYS = {"id", "type", "function", "index"}


def read_tools(value: Any, where: str) -> tuple[dict[str, Any], ...]:
    """Descriptions of functions: a list (or its JSON text) as OpenAI has it, or of the functions alone.

    Raises:
        InputError: it is no list of functions with names.
    """
    value = unpacked(value, "tools", where)
    if value is None or value == "":
        return ()
    if not isinstance(value, list):
        raise InputError(f"{where}: tools has to be a list of functions", "see docs/formats.md")
    return tuple(_tool(each, number, where) for number, each in enumerate(value, 1))


def _tool(value: Any, number: int, where: str) -> dict[str, Any]:
    place = f"{where}: tool {number}"
    if not isinstance(value, dict):
        raise InputError(f"{place} is no object", 'write {"type": "function", "function": {"name": …}}')
    given = {key: each for key, each in value.items() if each is not None}
    if given.get("type", "function") != "function":
        raise InputError(f"{place} is of another type than function", "describe it as a function, or leave it out")
    if "function" in given:
        function = given["function"]
    else:
        function = {key: each for key, each in given.items() if key != "type"}
        given = {}
    if not isinstance(function, dict) or not _is_name(function.get("name")):
        raise InputError(f"{place} has no name", 'write {"type": "function", "function": {"name": …}}')
    parameters = unpacked(function.get("parameters"), f"parameters of tool {number}", where)
    if parameters not in (None, "") and not isinstance(parameters, dict):
        raise InputError(f"{place}: parameters has to be a JSON schema", "write it as an object")
    function = {key: each for key, each in function.items() if key != "parameters" and each is not None}
    if isinstance(parameters, dict):
        function["parameters"] = parameters
    return {**given, "type": "function", "function": function}


def read_calls(value: Any, place: str) -> list[dict[str, Any]]:
    """Calls of functions, as OpenAI has them or as names with arguments; arguments become objects.

    Args:
        value: a list, one call, or the JSON text of either.
        place: of the message, for errors.

    Raises:
        InputError: a call without a name, or arguments that are no object.
    """
    value = unpacked(value, "the call", place)
    calls = value if isinstance(value, list) else [value]
    return [_call(each, place) for each in calls]


def _call(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{place}: a call of a tool is no object", _CALL_FORM)
    given = {key: each for key, each in value.items() if each is not None}
    function: Any = given
    if "function" in given:
        function = given["function"]
        _refuse_other(given, _ENVELOPE_KEYS, place)
        if given.get("type", "function") != "function":
            raise InputError(f"{place}: a call is of another type than function", _CALL_FORM)
    if not isinstance(function, dict) or not _is_name(function.get("name")):
        raise InputError(f"{place}: a call of a tool has no name", _CALL_FORM)
    _refuse_other(function, _CALL_KEYS if function is not given else _CALL_KEYS | {"id", "type"}, place)
    arguments = unpacked(function.get("arguments"), f"arguments of {function['name']}", place)
    if arguments is None or arguments == "":
        arguments = {}
    if not isinstance(arguments, dict):
        raise InputError(f"{place}: arguments of {function['name']} are no object", 'write {"argument": value}')
    identity = {"id": given["id"]} if _is_name(given.get("id")) else {}
    return {"type": "function", **identity, "function": {"name": function["name"], "arguments": arguments}}


_CALL_FORM = 'write {"type": "function", "function": {"name": …, "arguments": {…}}}'


def _refuse_other(given: Mapping[str, Any], known: set[str], place: str) -> None:
    if not set(given) <= known:
        raise InputError(f"{place}: a call of a tool has other keys than {', '.join(sorted(known))}", _CALL_FORM)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
