"""The llama.cpp library itself: started once, its log caught, its build described."""

from __future__ import annotations

import ctypes
import importlib.metadata
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from llama_cpp import llama_cpp as llama

log = logging.getLogger(__name__)

ERROR_LEVEL = 4  # GGML_LOG_LEVEL_ERROR
AMX = "AMX_INT8"  # as llama_print_system_info names it


class _Reported(threading.local):
    """llama.cpp reports errors only through its log; the last ones of a thread explain what a null pointer doesn't."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.heard: list[str] | None = None  # all that is logged, while somebody listens


_errors = _Reported()


@llama.llama_log_callback  # type: ignore[untyped-decorator, unused-ignore]
def log_callback(level: int, text: bytes, _data: Any) -> None:
    """Where llama.cpp and mtmd log to."""
    if _errors.heard is not None:
        _errors.heard.append(text.decode("utf-8", "replace"))
    line = text.decode("utf-8", "replace").rstrip()
    if level == ERROR_LEVEL and line:
        _errors.lines.append(line)
        del _errors.lines[:-8]
    if line:
        log.debug("%s", line)


def reason() -> str:
    """What the library reported since :func:`clear_errors`, in brackets, or nothing."""
    first = _errors.lines[0] if _errors.lines else ""
    return f" ({first.partition(': ')[2] or first})" if first else ""


def clear_errors() -> None:
    """Forget what was reported."""
    _errors.lines.clear()


@cache
def start_backend() -> None:
    """Start llama.cpp once, with its log sent to Python's at debug level instead of to stderr."""
    llama.llama_log_set(log_callback, ctypes.c_void_p(0))
    _load_kernels()
    llama.llama_backend_init()


def _load_kernels() -> None:
    """Load the kernels that suit this CPU, where the engine was built with several sets of them.

    Wheels of ``edgekit build-runtime`` are (GGML_BACKEND_DL); others have one set, which loads with the library.
    """
    folder = Path(llama.__file__).parent / "lib"
    if any(folder.glob("libggml-cpu-*.so")):
        ctypes.CDLL(str(folder / "libggml.so")).ggml_backend_load_all_from_path(str(folder).encode())


@cache
def dots_in_steps() -> bool:
    """Whether this CPU's kernels are those whose dot products :mod:`~.odd_rank` knows the steps of: AVX2's."""
    features = engine_info()["cpu_features"]
    return "AVX2" in features and "AVX512" not in features


@contextmanager
def engine_errors() -> Iterator[list[str]]:
    """Collect what llama.cpp reports as errors while the block runs."""
    start_backend()
    clear_errors()
    yield _errors.lines


@contextmanager
def engine_log() -> Iterator[list[str]]:
    """Collect all that llama.cpp logs on this thread while the block runs, in pieces of lines."""
    start_backend()
    heard: list[str] = []
    _errors.heard = heard
    try:
        yield heard
    finally:
        _errors.heard = None


@cache
def engine_info() -> dict[str, Any]:
    """Name, versions and the CPU features that this build of llama.cpp uses."""
    start_backend()
    features = llama.llama_print_system_info().decode()
    used = [part.partition(" = ")[0].strip() for part in features.replace("CPU :", "").split("|") if "= 1" in part]
    return {
        "name": "llama.cpp",
        "version": f"llama-cpp-python {importlib.metadata.version('llama-cpp-python')}",
        "cpu_features": used,
    }


def model_parameters() -> Any:
    """How a model is loaded with its weights.

    llama.cpp's AMX kernels crash on some machines (ggml-org/llama.cpp#20824), by how the compiler laid out their
    tile configuration.  The only switch takes all repacked weights along, so they stay off where AMX is compiled in.
    """
    parameters = llama.llama_model_default_params()
    parameters.use_extra_bufts = AMX not in engine_info()["cpu_features"]
    return parameters
