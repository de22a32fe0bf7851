"""Ollama's ``options`` and ``format``: how tokens are chosen, and what the answer follows."""

from __future__ import annotations

from typing import Any

from edgekit_runtime.errors import InputError
from edgekit_runtime.prompts.bounds import TO_CONTEXT
from edgekit_runtime.server.fields import Fields
from edgekit_runtime.server.ollama import tables
from edgekit_runtime.server.openai.forms import ANY_OBJECT, checked
from edgekit_runtime.server.openai.sampling import read_sampling
from edgekit_runtime.server.parameters import check

JSON = "json"
LAST_TOKENS = 64  # Ollama's repeat_last_n
TO_THE_END = (-1, -2)  # of num_predict
_WHOLE = ("top_k", "seed", "num_predict", "repeat_last_n")


def read_options(document: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Arguments of Runtime.stream that ``options`` ask for, and the names of those that nobody knows.

    Raises:
        InputError: a value of the wrong kind, or an option that is not available.
    """
    given = {name: _whole(name, value) for name, value in (Fields(document).object("options") or {}).items()}
    ignored = check(given, tables.OPTIONS, "options")
    known = {name: value for name, value in given.items() if name in tables.OPTIONS}
    if known.get("repeat_last_n") is None:
        known["repeat_last_n"] = LAST_TOKENS
    found = read_sampling(Fields(known)) | {"stop": Fields(known).stops("stop")}
    if known.get("num_predict") in TO_THE_END:
        return found | {"max_tokens": TO_CONTEXT}, ignored
    return found | {"max_tokens": Fields(known).number("num_predict", int, 1)}, ignored


def read_format(document: dict[str, Any]) -> dict[str, Any]:
    """The argument of Runtime.stream that ``format`` asks for, if any.

    Raises:
        InputError: neither ``json`` nor a JSON schema.
    """
    wanted = document.get("format")
    if wanted in (None, ""):
        return {}
    if wanted == JSON:
        return {"schema": ANY_OBJECT}
    if not isinstance(wanted, dict):
        raise InputError('format has to be "json" or a JSON schema', "send one of them, or leave it out")
    return {"schema": checked("format", "schema", wanted)}


def _whole(name: str, value: Any) -> Any:
    """Numbers of clients whose language has floats alone."""
    return int(value) if name in _WHOLE and isinstance(value, float) and value.is_integer() else value
