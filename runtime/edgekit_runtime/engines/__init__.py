"""Engines: what loads a base and decodes tokens.  Each engine is one file here."""

from edgekit_runtime.engines.base import DEFAULT_CONTEXT, Engine, Sampling

__all__ = ["DEFAULT_CONTEXT", "Engine", "Sampling"]
