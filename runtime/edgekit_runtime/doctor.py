"""Is this device fit to run?  Each check says what it found, and what to do when it isn't right."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edgekit_runtime import machine
from edgekit_runtime.errors import EdgekitError
from edgekit_runtime.runtime import BASE, Runtime

MIB = 1024 * 1024
LEAST_FREE_MB = 64  # for generations, logs and a new adapter
CANARY_PROMPT, CANARY_TOKENS = "Say something.", 8


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; ``found`` says what is wrong and how to mend it when it isn't ``ok``."""

    what: str
    ok: bool
    found: str


def examine(subject: Path | None) -> Iterator[Check]:
    """Look at the machine and the engine, and with ``subject`` (a bundle or store) run each adapter once."""
    yield _machine()
    yield _attempt("engine", _engine)
    if subject is None:
        return
    yield _room(subject)
    try:
        runtime = Runtime(subject)
    except EdgekitError as error:
        yield Check("bundle", ok=False, found=str(error))
        return
    with runtime:
        manifest = runtime.manifest
        base = manifest.base
        yield Check("bundle", ok=True, found=f"{manifest.name} {manifest.version}, {base.family} {base.quantization}")
        yield _memory(manifest.requires.memory_mb)
        for name in [BASE, *(entry.name for entry in manifest.adapters)]:
            yield _attempt(f"answer of {name}", lambda name=name: _answer(runtime, name))  # type: ignore[misc]


def _machine() -> Check:
    facts = machine.describe()
    flags = " ".join(facts["flags"]) or "no vector instructions that the engine has kernels for"
    return Check("machine", ok=True, found=f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_mb']} MiB, {flags}")


def _engine() -> str:
    from edgekit_runtime.engines.llama_library import engine_info

    info = engine_info()
    return f"{info['version']}, built with {' '.join(info['cpu_features']) or 'no CPU features'}"


def _room(subject: Path) -> Check:
    free = shutil.disk_usage(subject if subject.exists() else subject.parent).free // MIB
    mend = "" if free >= LEAST_FREE_MB else ": free some space, or run `edgekit-runtime adapters gc`"
    return Check("storage", ok=free >= LEAST_FREE_MB, found=f"{free} MiB free{mend}")


def _memory(needed_mb: int) -> Check:
    """``requires.memory_mb`` is an upper estimate for the whole context: less than that is told, but no failure."""
    import psutil

    available = psutil.virtual_memory().available // MIB
    enough = available >= needed_mb
    advice = "" if enough else ": a smaller --context needs less"
    return Check("memory", ok=True, found=f"{available} MiB available, at most {needed_mb} MiB needed{advice}")


def _answer(runtime: Runtime, name: str) -> str:
    answer = runtime.generate(CANARY_PROMPT, adapter=name, max_tokens=CANARY_TOKENS, temperature=0)
    timings = answer.timings
    count = answer.usage.completion_tokens
    return f"{count} tokens, the first after {timings.ttft_ms:.0f} ms, {timings.decode_tps:.0f} tokens/s"


def _attempt(what: str, action: Callable[[], str]) -> Check:
    try:
        return Check(what, ok=True, found=action())
    except (EdgekitError, ImportError, OSError) as error:
        return Check(what, ok=False, found=str(error))
