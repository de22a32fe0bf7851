"""Engines: what loads a base and decodes tokens.  Each engine is one file here."""

from edgekit_runtime.engines.base import (
    BARE,
    DEFAULT_CONTEXT,
    PREFILL_CHUNK,
    SHARED_CONTEXT,
    Engine,
    Frame,
    Images,
    Layout,
    Part,
    Prompt,
    Sampler,
    Sampling,
    Stack,
    forced_logits,
    generate,
    working_from,
)

__all__ = [
    "BARE",
    "DEFAULT_CONTEXT",
    "PREFILL_CHUNK",
    "SHARED_CONTEXT",
    "Engine",
    "Frame",
    "Images",
    "Layout",
    "Part",
    "Prompt",
    "Sampler",
    "Sampling",
    "Stack",
    "forced_logits",
    "generate",
    "working_from",
]
