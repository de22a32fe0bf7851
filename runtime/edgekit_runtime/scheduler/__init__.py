"""Continuous batching: many requests, each with its own adapters, over one engine."""

from edgekit_runtime.scheduler.loop import Loop
from edgekit_runtime.scheduler.pool import AdapterPool
from edgekit_runtime.scheduler.prefixes import PrefixCache
from edgekit_runtime.scheduler.request import Job, Piece, TokenScore, Work

__all__ = ["AdapterPool", "Job", "Loop", "Piece", "PrefixCache", "TokenScore", "Work"]
