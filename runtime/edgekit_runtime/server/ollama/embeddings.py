"""Ollama's two requests for vectors of texts."""

from __future__ import annotations

import time
from typing import Any

from edgekit_runtime.errors import InputError
from edgekit_runtime.server.asked import Asked
from edgekit_runtime.server.fields import Fields
from edgekit_runtime.server.ollama import tables
from edgekit_runtime.server.ollama.names import named
from edgekit_runtime.server.openai.embeddings import numbers
from edgekit_runtime.server.parameters import check


def read_embed(document: dict[str, Any]) -> Asked:
    """Check the body of /api/embed.  Without texts nothing is computed: it only asks for the model to be loaded.

    Raises:
        InputError: a value of the wrong kind.
    """
    ignored, fields = check(document, tables.EMBED), Fields(document)
    given = document.get("input")
    texts = [given] if isinstance(given, str) else [] if given is None else given
    if not isinstance(texts, list) or not all(isinstance(each, str) for each in texts):
        raise InputError("input has to be a text or a list of texts", 'send "input": "text"')
    options = {"truncate": fields.flag("truncate") is not False, "dimensions": fields.number("dimensions", int, 1)}
    return _asked(document, [] if texts == [""] else texts, ignored, options)


def read_embeddings(document: dict[str, Any]) -> Asked:
    """Check the body of /api/embeddings, the earlier one of the two.

    Raises:
        InputError: a value of the wrong kind.
    """
    ignored = check(document, tables.EMBEDDINGS)
    text = Fields(document).text("prompt")
    return _asked(document, [text] if text else [], ignored, {"truncate": True})


def _asked(document: dict[str, Any], texts: list[str], ignored: tuple[str, ...], options: dict[str, Any]) -> Asked:
    Fields(document).object("options")
    _, model = named(document, "model")
    wanted = [{"texts": texts, "adapter": model} | options] if texts else []
    return Asked(model, wanted, chat=False, stream=False, include_usage=False, ignored=ignored, embeds=True)


class VectorsWriter:
    """Says vectors as Ollama's clients read them; they come whole."""

    def __init__(self, model: str, *, several: bool) -> None:
        """Say what is answered for ``model``, as the client spells it: ``several`` vectors, or one."""
        self._model, self._several = model, several
        self._began = time.perf_counter_ns()

    def whole(self, results: list[dict[str, Any]], scores: list[list[Any]]) -> dict[str, Any]:
        """The vectors, in the order of their texts; none where nothing was to be computed."""
        vectors = [numbers(each) for result in results for each in result["vectors"]]
        if not self._several:
            return {"embedding": vectors[0] if vectors else []}
        return {
            "model": self._model,
            "embeddings": vectors,
            "total_duration": time.perf_counter_ns() - self._began,
            "load_duration": 0,
            "prompt_eval_count": sum(result["usage"]["prompt_tokens"] for result in results),
        }
