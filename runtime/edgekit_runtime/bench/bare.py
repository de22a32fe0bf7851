"""The least that decoding can cost: the engine's own step in a loop, nothing around it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from llama_cpp import llama_cpp as llama

from edgekit_runtime.engines import PREFILL_CHUNK, Part
from edgekit_runtime.engines.llama.context import set_kv_cache
from edgekit_runtime.engines.llama.library import model_parameters
from edgekit_runtime.engines.opening import open_engine
from edgekit_runtime.formats.base_files import BaseFiles
from edgekit_runtime.formats.manifest import F16
from edgekit_runtime.formats.onnx_base import ENGINE as ONNX


class BareLoop:
    """A model and context of its own on the same file as the runtime's."""

    def __init__(self, base: Path, *, context: int, threads: int, kv_cache: str = F16) -> None:
        self._model = llama.llama_model_load_from_file(str(base).encode(), model_parameters())
        parameters = llama.llama_context_default_params()
        parameters.n_ctx = context
        set_kv_cache(parameters, kv_cache)
        parameters.n_threads = parameters.n_threads_batch = threads
        self._context = llama.llama_init_from_model(self._model, parameters)

    def decode_tps(self, prompt: Sequence[int], steps: int) -> float:
        """Prefill ``prompt``, then time ``steps`` single-token decodes; tokens per second."""
        llama.llama_memory_clear(llama.llama_get_memory(self._context), False)
        tokens = (llama.llama_token * len(prompt))(*prompt)
        llama.llama_decode(self._context, llama.llama_batch_get_one(tokens, len(prompt)))
        one = (llama.llama_token * 1)(prompt[-1])
        start = time.perf_counter()
        for _ in range(steps):
            llama.llama_decode(self._context, llama.llama_batch_get_one(one, 1))
        return steps / (time.perf_counter() - start)

    def close(self) -> None:
        """Free the context and the model."""
        llama.llama_free(self._context)
        llama.llama_model_free(self._model)


class BareSteps:
    """The same with an ONNX session: steps of an engine of its own, nothing sampled."""

    def __init__(self, base: BaseFiles, *, context: int, threads: int) -> None:
        self._engine = open_engine(base, context=context, threads=threads)

    def decode_tps(self, prompt: Sequence[int], steps: int) -> float:
        """Prefill ``prompt``, then time ``steps`` single-token decodes; tokens per second."""
        for start in range(0, len(prompt), PREFILL_CHUNK):
            self._engine.decode([Part(0, start, prompt[start : start + PREFILL_CHUNK])])
        start_time = time.perf_counter()
        for step in range(steps):
            self._engine.decode([Part(0, len(prompt) + step, [prompt[-1]])])
        return steps / (time.perf_counter() - start_time)

    def close(self) -> None:
        """Free the engine."""
        self._engine.close()


def bare_loop(base: BaseFiles, *, context: int, threads: int) -> BareLoop | BareSteps:
    """The loop for a base's engine."""
    if base.engine == ONNX:
        return BareSteps(base, context=context, threads=threads)
    return BareLoop(base.model, context=context, threads=threads, kv_cache=base.kv_cache)
