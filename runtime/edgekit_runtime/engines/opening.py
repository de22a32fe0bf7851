"""The engine that a base was exported for."""

from __future__ import annotations

from edgekit_runtime.engines.base import Engine
from edgekit_runtime.errors import UsageError
from edgekit_runtime.formats.base_files import BaseFiles
from edgekit_runtime.formats.kv_cache import refuse_for_onnx
from edgekit_runtime.formats.onnx_base import ENGINE as ONNX


def open_engine(files: BaseFiles, *, context: int, threads: int, sequences: int = 1, exact: bool = True) -> Engine:
    """Load a base with ``sequences`` KV sequences of ``context`` tokens each.

    ``exact``: an answer must not depend on who else is asking or has asked, to the bit.

    Raises:
        InputError: the engine is not installed, refuses a file or a KV cache of the type that ``files`` names, or there
            is not enough memory.
        UsageError: an ONNX base with a KV cache of another type than its own, or that is not to be exact.
    """
    if files.engine == ONNX:
        refuse_for_onnx(files.kv_cache)
        if not exact:
            raise UsageError("ONNX Runtime has no quicker way than the exact one", "leave out --exact off")
        from edgekit_runtime.engines.onnx.engine import OnnxEngine

        return OnnxEngine(files, context=context, threads=threads, sequences=sequences)
    from edgekit_runtime.engines.llama.engine import LlamaEngine

    return LlamaEngine(
        files.model, context=context, threads=threads, sequences=sequences, kv_cache=files.kv_cache, exact=exact
    )
