"""The engine that a base was exported for."""

from __future__ import annotations

from edgekit_runtime.engines.base import Engine
from edgekit_runtime.formats.base_files import BaseFiles
from edgekit_runtime.formats.kv_cache import refuse_for_onnx
from edgekit_runtime.formats.onnx_base import ENGINE as ONNX


def open_engine(files: BaseFiles, *, context: int, threads: int, sequences: int = 1) -> Engine:
    """Load a base with ``sequences`` KV sequences of ``context`` tokens each.

    Raises:
        InputError: the engine is not installed, refuses a file or a KV cache of the type that ``files`` names, or there
            is not enough memory.
        UsageError: an ONNX base with a KV cache of another type than its own.
    """
    if files.engine == ONNX:
        from edgekit_runtime.engines.onnx.engine import OnnxEngine

        refuse_for_onnx(files.kv_cache)
        return OnnxEngine(files, context=context, threads=threads, sequences=sequences)
    from edgekit_runtime.engines.llama.engine import LlamaEngine

    return LlamaEngine(files.model, context=context, threads=threads, sequences=sequences, kv_cache=files.kv_cache)
