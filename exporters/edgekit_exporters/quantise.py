"""Quantising GGUF files with llama.cpp's own quantiser."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

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

    log: list[str] = []

    @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator, unused-ignore]
    def keep(_level: int, text: bytes, _data: Any) -> None:
        log.append(text.decode("utf-8", "replace"))

    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = quantizations()[quantization]
    parameters.nthread = threads
    parameters.allow_requantize = True
    llama_cpp.llama_log_set(keep, ctypes.c_void_p(0))
    try:
        failed = llama_cpp.llama_model_quantize(
            str(source).encode(), str(destination).encode(), ctypes.byref(parameters)
        )
    finally:
        llama_cpp.llama_log_set(_silent(), ctypes.c_void_p(0))
    if failed or not destination.exists():
        reason = next((line.strip() for line in reversed(log) if "fail" in line.lower() or "error" in line.lower()), "")
        raise InputError(
            f"llama.cpp could not quantise {source} to {quantization}{': ' + reason if reason else ''}",
            "check the free space and that the source is an F16, F32 or quantised GGUF model",
        )


@cache
def _silent() -> Any:
    """A log callback that says nothing; kept alive for as long as llama.cpp may call it."""
    from llama_cpp import llama_cpp

    return llama_cpp.llama_log_callback(lambda _level, _text, _data: None)
