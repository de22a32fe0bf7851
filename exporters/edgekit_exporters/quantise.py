"""Quantising GGUF files with llama.cpp's own quantiser."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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


def quantise(
    source: Path,
    destination: Path,
    quantization: str,
    *,
    imatrix: Mapping[str, NDArray[Any]] | None = None,
    tensor_types: Mapping[str, str] | None = None,
    threads: int = 0,
) -> None:
    """Write ``source`` at ``quantization`` to ``destination``; F32 and F16 work too.

    A source that is quantised already is dequantised first, so its own loss stays in the result.

    Args:
        source: a GGUF model.
        destination: the new file.
        quantization: one of :func:`quantizations`.
        imatrix: importance of each tensor's columns, see :mod:`~edgekit_exporters.imatrix`.
        tensor_types: regular expression over tensor names -> type, ``{"ffn_down": "Q6_K"}``; the first that fits wins.
        threads: 0 for all.

    Raises:
        UsageError: no such type, or no regular expression.
        InputError: llama.cpp could not read the source or write the destination.
    """
    from llama_cpp import llama_cpp

    from edgekit_runtime.engines.llama_library import engine_errors

    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = quantizations()[quantization]
    parameters.nthread = threads
    parameters.allow_requantize = True
    kept: list[Any] = []  # what the parameters point into has to live until the call returns
    if imatrix:
        parameters.imatrix = _imatrix_array(imatrix, kept)
    if tensor_types:
        parameters.tt_overrides = _override_array(tensor_types)
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


def _imatrix_array(imatrix: Mapping[str, NDArray[Any]], kept: list[Any]) -> Any:
    """llama.cpp's array of (name, values, count), ended by an entry without a name."""
    from llama_cpp import llama_cpp

    array = (llama_cpp.llama_model_imatrix_data * (len(imatrix) + 1))()
    for entry, (name, values) in zip(array, imatrix.items(), strict=False):
        floats = np.ascontiguousarray(values, dtype=np.float32)
        kept.append(floats)
        entry.name = name.encode()
        entry.data = floats.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        entry.size = floats.size
    return array


def _override_array(tensor_types: Mapping[str, str]) -> Any:
    """llama.cpp's array of (pattern, type), ended by an entry without a pattern."""
    from llama_cpp import llama_cpp

    array = (llama_cpp.llama_model_tensor_override * (len(tensor_types) + 1))()
    for entry, (pattern, name) in zip(array, tensor_types.items(), strict=False):
        try:
            re.compile(pattern)
        except re.error as error:
            raise UsageError(f"{pattern!r} is no regular expression ({error})", "name tensors, ffn_down say") from None
        entry.pattern = pattern.encode()
        entry.type = _tensor_type(name)
    return array


def _tensor_type(name: str) -> int:
    from gguf import GGMLQuantizationType

    known: dict[str, int] = {each.name: int(each) for each in GGMLQuantizationType}
    if name.upper() not in known:
        raise UsageError(f"no tensor type is called {name!r}", "use F16, Q8_0, Q6_K, Q5_K, Q4_K, Q4_0, …")
    return known[name.upper()]
