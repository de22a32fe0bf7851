"""The kinds of OpenAI's requests that the engine answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgekit_runtime.server.answering import Dialect, Writer
from edgekit_runtime.server.asked import Asked
from edgekit_runtime.server.openai.embeddings import EmbeddingsWriter, read_embeddings
from edgekit_runtime.server.openai.requests import read_chat, read_completion
from edgekit_runtime.server.openai.writing import OpenAIWriter


def _chat(document: dict[str, Any], adapters: Sequence[str]) -> tuple[Asked, Writer]:
    asked = read_chat(document, adapters)
    return asked, OpenAIWriter(asked)


def _completion(document: dict[str, Any], adapters: Sequence[str]) -> tuple[Asked, Writer]:
    asked = read_completion(document, adapters)
    return asked, OpenAIWriter(asked)


def _embeddings(document: dict[str, Any], adapters: Sequence[str]) -> tuple[Asked, Writer]:
    asked, as_base64 = read_embeddings(document, adapters)
    return asked, EmbeddingsWriter(asked, as_base64=as_base64)


CHAT, COMPLETION = Dialect(_chat), Dialect(_completion, images=None)
EMBEDDINGS = Dialect(_embeddings, images=None)
