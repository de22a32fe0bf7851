"""OpenAI's embeddings: from a body to the arguments of :meth:`~edgekit_runtime.Runtime.embedding_request`, and back."""

from __future__ import annotations

import array
import base64
import sys
from collections.abc import Sequence
from typing import Any

from edgekit_runtime.errors import InputError
from edgekit_runtime.server.asked import Asked
from edgekit_runtime.server.fields import Fields
from edgekit_runtime.server.openai.parameters import EMBEDDINGS
from edgekit_runtime.server.openai.requests import read_lora, read_model
from edgekit_runtime.server.parameters import check

_INPUT = 'send "input": "text"'


def read_embeddings(document: dict[str, Any], adapters: Sequence[str] = ()) -> tuple[Asked, bool]:
    """Check a body; ``adapters`` are those that numbers stand for.

    Returns:
        What is asked for, and whether vectors are wanted in base64.

    Raises:
        InputError: a value of the wrong kind.
    """
    ignored = check(document, EMBEDDINGS)
    fields = Fields(document)
    model = read_model(document)
    options = {
        "texts": read_texts(document.get("input")),
        "adapter": model,
        "lora": read_lora(document.get("lora"), adapters),
        "dimensions": fields.number("dimensions", int, 1),
    }
    as_base64 = fields.one_of("encoding_format", "float", "base64") == "base64"
    return Asked(model, [options], False, False, False, ignored, embeds=True), as_base64


def read_texts(given: Any) -> list[str | list[int]]:
    """The texts of an input: one, or several, each as text or as token ids.

    Raises:
        InputError: it is something else.
    """
    if isinstance(given, str):
        return [given]
    if not isinstance(given, list) or not given:
        raise InputError("input has to be text, token ids, or a list of either", _INPUT)
    if all(type(each) is int for each in given):
        return [given]
    for each in given:
        if not isinstance(each, str) and not (isinstance(each, list) and all(type(token) is int for token in each)):
            raise InputError("input has to be text, token ids, or a list of either", _INPUT)
    return given


class EmbeddingsWriter:
    """Says vectors as OpenAI's clients read them; they come whole."""

    def __init__(self, asked: Asked, *, as_base64: bool) -> None:
        """Say what is answered to ``asked``."""
        self._asked, self._as_base64 = asked, as_base64

    def whole(self, results: list[dict[str, Any]], scores: list[list[Any]]) -> dict[str, Any]:
        """The vectors, in the order of their texts."""
        (result,) = results
        found = enumerate(result["vectors"])
        return {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": each if self._as_base64 else numbers(each)}
                for index, each in found
            ],
            "model": self._asked.model,
            "usage": {name: result["usage"][name] for name in ("prompt_tokens", "total_tokens")},
        }


def numbers(vector: str) -> list[float]:
    """The numbers of a vector that is float32 in base64, little-endian."""
    values = array.array("f")
    values.frombytes(base64.b64decode(vector))
    if sys.byteorder == "big":
        values.byteswap()
    return values.tolist()
