"""Quantising GGUF files with llama.cpp's own quantiser."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

from edgekit_runtime.errors import InputError, UsageError


@cache
def quantizations() -> dict[str, int]:
    """Names of the quantisations that the installed engine can make -> its ftype number.

    The names are those of llama.cpp's quantize tool (``Q4_K_M``, ``F16``, …), read from the bindings.  Q4_K, Q5_K
    and Q3_K are short for their _M mixes.
    """
    from llama_cpp import llama_cpp

    prefix = "LLAMA_FTYPE_MOSTLY_"
    known = {
        name.removeprefix(prefix): number
        for name, number in vars(llama_cpp).items()
        if name.startswith(prefix) and not name.endswith(("_MOE", "NVFP4"))
    }
    known["F32"] = llama_cpp.LLAMA_FTYPE_ALL_F32
    return known


def canonical_quantization(name: str) -> str:
    """``q4_0`` -> ``Q4_0``.

    Raises:
        UsageError: no such quantisation.
    """
    upper = name.upper()
    if upper in ("Q3_K", "Q4_K", "Q5_K"):
        upper += "_M"
    if upper not in quantizations():
        raise UsageError(f"no quantisation is called {name!r}", f"use one of {', '.join(sorted(quantizations()))}")
    return upper


def quantise(source: Path, destination: Path, quantization: str, *, threads: int = 0) -> None:
    """Write ``source`` at ``quantization`` to ``destination``; F32 and F16 work too.

    A source that is quantised already is dequantised first, so its own loss stays in the result.

    Raises:
        InputError: llama.cpp could not read the source or write the destination.
    """
    from llama_cpp import llama_cpp

    from edgekit_runtime.engines.llama_cpp import engine_errors

    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = quantizations()[quantization]
    parameters.nthread = threads
    parameters.allow_requantize = True
    with engine_errors() as errors:
        failed = llama_cpp.llama_model_quantize(
            str(source).encode(), str(destination).encode(), ctypes.byref(parameters)
        )
    if failed or not destination.exists():
        reason = f" ({errors[0]})" if errors else ""
        raise InputError(
            f"llama.cpp could not quantise {source} to {quantization}{reason}",
            "check the free space and that the source is an F16, F32 or quantised GGUF model",
        )
