"""edgekit-runtime: one base model, many adapters, on devices.

>>> from edgekit_runtime import Runtime
>>> with Runtime("dist/line-3") as runtime:  # doctest: +SKIP
...     print(runtime.generate("part: bracket; finding: scratch 0.4 mm", adapter="inspection").text)

Importing this package is cheap; engine and template code load with the first :class:`Runtime`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgekit_runtime.errors import EdgekitError, GateRefused, InputError, TargetError, UsageError

if TYPE_CHECKING:
    from edgekit_runtime.formats.bundle import Bundle, open_bundle, verify_bundle
    from edgekit_runtime.formats.manifest import Manifest
    from edgekit_runtime.runtime import BASE, Runtime
    from edgekit_runtime.runtime.embedding import Embeddings
    from edgekit_runtime.runtime.generation import Generation, Stream
    from edgekit_runtime.runtime.options import Options

__all__ = [
    "BASE",
    "Bundle",
    "EdgekitError",
    "Embeddings",
    "GateRefused",
    "Generation",
    "InputError",
    "Manifest",
    "Options",
    "Runtime",
    "Stream",
    "TargetError",
    "UsageError",
    "open_bundle",
    "verify_bundle",
]

_HOMES = {
    "BASE": "runtime",
    "Bundle": "formats.bundle",
    "Embeddings": "runtime.embedding",
    "Generation": "runtime.generation",
    "Manifest": "formats.manifest",
    "Options": "runtime.options",
    "Runtime": "runtime",
    "Stream": "runtime.generation",
    "open_bundle": "formats.bundle",
    "verify_bundle": "formats.bundle",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
