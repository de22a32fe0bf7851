"""Quantising GGUF files with llama.cpp's own quantiser."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit_runtime.errors import InputError, UsageError
from edgekit_runtime.formats.gguf import TENSOR_TYPES
from edgekit_runtime.hints import did_you_mean

# What the quantiser makes, from wide to narrow, by the names of llama.cpp's quantize tool -> llama.cpp's number, which
# files have as general.file_type.  Written down here, as asking the engine means loading it.
QUANTIZATIONS = {
    **{"F32": 0, "F16": 1, "BF16": 32, "Q8_0": 7},
    **{"Q6_K": 18, "Q5_K_M": 17, "Q5_K_S": 16, "Q5_1": 9, "Q5_0": 8},
    **{"Q4_K_M": 15, "Q4_K_S": 14, "IQ4_NL": 25, "IQ4_XS": 30, "Q4_1": 3, "Q4_0": 2},
    **{"Q3_K_L": 13, "Q3_K_M": 12, "Q3_K_S": 11, "IQ3_M": 27, "IQ3_S": 26, "IQ3_XS": 22, "IQ3_XXS": 23},
    **{"Q2_K": 10, "Q2_K_S": 21, "Q2_0": 41, "IQ2_M": 29, "IQ2_S": 28, "IQ2_XS": 20, "IQ2_XXS": 19},
    **{"IQ1_M": 31, "IQ1_S": 24, "Q1_0": 40, "TQ1_0": 36, "TQ2_0": 37},
}
# What `--quantize auto` measures, from nearly lossless to small: what llama.cpp runs fast on a CPU.
MEASURED = ("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_NL", "Q4_0")
# What `edgekit plan` advises, least loss first.
ADVISED = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "Q3_K_M")
# Q4_K, Q5_K and Q3_K are short for their _M mixes.
MIXES = ("Q3_K", "Q4_K", "Q5_K")
# How a dry run logs a tensor whose type changes: "[ 1/ 9] NAME - [shape], type = f32, size = 1 MiB -> 1 MiB (q4_K)".
_CHANGED = re.compile(r"^\[ *\d+/ *\d+\] (\S+) +- \[[^]]*\], type = +\w+, size = .* -> .* MiB \((\w+)\)$", re.MULTILINE)
_NOT_STORED = ("F64", "I8", "I16", "I32", "I64", "Q8_1", "Q8_K")  # of numbers in between, not of weights
# Types that single tensors can be given, by name -> ggml's number.
TENSOR_TYPE_NUMBERS = {name: number for number, (name, *_) in TENSOR_TYPES.items() if name not in _NOT_STORED}


def canonical_quantization(name: str) -> str:
    """``q4_0`` -> ``Q4_0``.

    Raises:
        UsageError: no such quantisation.
    """
    upper = name.upper()
    if upper in MIXES:
        upper += "_M"
    if upper not in QUANTIZATIONS:
        raise UsageError(f"no quantization is called {name!r}", did_you_mean(name, QUANTIZATIONS))
    return upper


def check_tensor_types(tensor_types: Mapping[str, str]) -> None:
    """Refuse what the quantiser can't be told.

    Raises:
        UsageError: no such type, or no regular expression.
    """
    for pattern, name in tensor_types.items():
        try:
            re.compile(pattern)
        except re.error as error:
            raise UsageError(f"{pattern!r} is no regular expression ({error})", "name tensors, ffn_down say") from None
        if name.upper() not in TENSOR_TYPE_NUMBERS:
            raise UsageError(f"no tensor type is called {name!r}", did_you_mean(name, TENSOR_TYPE_NUMBERS))


def quantize(
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
        quantization: one of ``QUANTIZATIONS``.
        imatrix: importance of each tensor's columns, see :mod:`~edgekit_exporters.gguf.imatrix`.
        tensor_types: regular expression over tensor names -> type, ``{"ffn_down": "Q6_K"}``; the first that fits wins.
        threads: 0 for all.

    Raises:
        UsageError: no such type, or no regular expression.
        InputError: llama.cpp could not read the source or write the destination.
    """
    kept: list[Any] = []  # what the parameters point into has to live until the call returns
    parameters = _parameters(quantization, imatrix, tensor_types, kept)
    parameters.nthread = threads
    _run(source, destination, quantization, parameters)
    if not destination.exists():
        raise InputError(f"llama.cpp did not write {destination}", "check the free space")


def quantized_types(
    source: Path,
    quantization: str,
    *,
    imatrix: bool = False,
    tensor_types: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The type that :func:`quantize` would give each tensor, from a dry run of the quantiser: no weight is read.

    Args:
        source: a GGUF model; its data may be missing, as in a sparse file.
        quantization: one of ``QUANTIZATIONS``.
        imatrix: whether there will be an importance matrix; some mixes differ with one.
        tensor_types: as in :func:`quantize`.

    Returns:
        Name of a tensor -> name of its type, for those whose type changes.

    Raises:
        UsageError: no such type, or no regular expression.
        InputError: llama.cpp doesn't read the source.
    """
    from edgekit_runtime.engines.llama.library import engine_log

    kept: list[Any] = []
    parameters = _parameters(quantization, {"": np.ones(1)} if imatrix else None, tensor_types, kept)
    parameters.dry_run = True
    with engine_log() as heard:
        _run(source, Path(os.devnull), quantization, parameters)
    return {name: made.upper() for name, made in _CHANGED.findall("".join(heard))}


def _parameters(
    quantization: str,
    imatrix: Mapping[str, NDArray[Any]] | None,
    tensor_types: Mapping[str, str] | None,
    kept: list[Any],
) -> Any:
    from llama_cpp import llama_cpp

    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = QUANTIZATIONS[quantization]
    parameters.allow_requantize = True
    if imatrix:
        parameters.imatrix = _imatrix_array(imatrix, kept)
    if tensor_types:
        check_tensor_types(tensor_types)
        parameters.tt_overrides = _override_array(tensor_types)
    return parameters


def _run(source: Path, destination: Path, quantization: str, parameters: Any) -> None:
    from llama_cpp import llama_cpp

    from edgekit_runtime.engines.llama.library import engine_errors

    with engine_errors() as errors:
        failed = llama_cpp.llama_model_quantize(
            str(source).encode(), str(destination).encode(), ctypes.byref(parameters)
        )
    if failed:
        reason = f" ({errors[0]})" if errors else ""
        raise InputError(
            f"llama.cpp could not quantize {source} to {quantization}{reason}",
            "check the free space and that the source is an F16, F32 or quantized GGUF model",
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
        entry.pattern = pattern.encode()
        entry.type = TENSOR_TYPE_NUMBERS[name.upper()]
    return array
