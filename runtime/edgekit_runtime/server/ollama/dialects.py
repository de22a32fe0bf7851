"""The kinds of Ollama's requests that the engine answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from edgekit_runtime.server.answering import Dialect, Writer
from edgekit_runtime.server.asked import Asked
from edgekit_runtime.server.bodies import ImagePlaces
from edgekit_runtime.server.ollama.embeddings import VectorsWriter, read_embed, read_embeddings
from edgekit_runtime.server.ollama.errors import ollama_error
from edgekit_runtime.server.ollama.names import named
from edgekit_runtime.server.ollama.requests import read_chat, read_generate
from edgekit_runtime.server.ollama.writing import OllamaWriter

BASE64 = ImagePlaces(
    re.compile(rb'"images"\s{0,16}:\s{0,16}\[\s{0,16}"'), re.compile(rb'"\s{0,16},\s{0,16}"'), bare=True
)


def _chat(document: dict[str, Any], adapters: Sequence[str]) -> tuple[Asked, Writer]:
    asked = read_chat(document)
    return asked, OllamaWriter(asked, named(document, "model")[0])


def _generate(document: dict[str, Any], adapters: Sequence[str]) -> tuple[Asked, Writer]:
    asked = read_generate(document)
    return asked, OllamaWriter(asked, named(document, "model")[0])


def _embed(document: dict[str, Any], adapters: Sequence[str]) -> tuple[Asked, Writer]:
    return read_embed(document), VectorsWriter(named(document, "model")[0], several=True)


def _embeddings(document: dict[str, Any], adapters: Sequence[str]) -> tuple[Asked, Writer]:
    return read_embeddings(document), VectorsWriter(named(document, "model")[0], several=False)


CHAT, GENERATE = Dialect(_chat, ollama_error, BASE64), Dialect(_generate, ollama_error, BASE64)
EMBED, EMBEDDINGS = Dialect(_embed, ollama_error, images=None), Dialect(_embeddings, ollama_error, images=None)
