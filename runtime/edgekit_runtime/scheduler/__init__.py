"""Continuous batching: many requests, each with its own adapters, over one engine."""

from edgekit_runtime.scheduler.embedding import EmbeddingQueue, EmbeddingRequest
from edgekit_runtime.scheduler.lookahead import Lookahead
from edgekit_runtime.scheduler.loop import Loop
from edgekit_runtime.scheduler.parked import DEFAULT_CHAT_MEMORY, ParkedChats
from edgekit_runtime.scheduler.pool import AdapterPool
from edgekit_runtime.scheduler.prefixes import DEFAULT_PREFIX_MEMORY, PrefixCache
from edgekit_runtime.scheduler.request import Piece, Request, TokenScore, Work

__all__ = [
    "DEFAULT_CHAT_MEMORY",
    "DEFAULT_PREFIX_MEMORY",
    "AdapterPool",
    "EmbeddingQueue",
    "EmbeddingRequest",
    "Lookahead",
    "Loop",
    "ParkedChats",
    "Piece",
    "PrefixCache",
    "Request",
    "TokenScore",
    "Work",
]
