"""Rows of the KV cache and adapters, bound to the graph's inputs; a binding that was made is used again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from edgekit_runtime.engines.base import Stack
from edgekit_runtime.engines.onnx.adapter_sets import names_in
from edgekit_runtime.engines.onnx.adapters import Values
from edgekit_runtime.engines.onnx.kv_cache import KvCache

KEPT = 64


class Bindings:
    """What is bound, by rows and stacks."""

    def __init__(
        self, session: Any, cache: KvCache, inputs: Collection[str], values: Callable[[Sequence[Stack]], Values]
    ) -> None:
        """``inputs`` are those of the graph that take adapters, ``values`` what to put there for the stacks of rows."""
        self._session, self._cache, self._inputs, self._adapters = session, cache, inputs, values
        self._made: dict[tuple[int, int, tuple[Stack, ...]], Any] = {}

    def of(self, first: int, count: int, stacks: Sequence[Stack]) -> Any:
        """Rows ``first`` and on of the KV cache, and the adapters of these rows, bound to the graph."""
        key = (first, count, tuple(stacks))
        if len(self._made) >= KEPT:
            self._made.clear()
        if key not in self._made:
            self._made[key] = self._bind(first, count, stacks)
        return self._made[key]

    def _bind(self, first: int, count: int, stacks: Sequence[Stack]) -> Any:
        binding = self._session.io_binding()
        for name, output, past, present in self._cache.values(first, count):
            binding.bind_ortvalue_input(name, past)
            binding.bind_ortvalue_output(output, present)
        for name, value in self._adapters(stacks).items():
            if name in self._inputs:
                binding.bind_ortvalue_input(name, value)
        return binding

    def drop(self, adapter: str) -> None:
        """Let go of those with an adapter."""
        self._made = {key: each for key, each in self._made.items() if adapter not in names_in(key[2])}

    def clear(self) -> None:
        """Let go of all."""
        self._made.clear()

    def close(self) -> None:
        """Let go of the session too."""
        self._made.clear()
        self._session = None
