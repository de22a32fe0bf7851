"""Where a bundle can be measured: the part of ``--target`` before a colon -> what measures there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgekit_runtime.errors import UsageError

Measure = Callable[..., dict[str, Any]]


def bench_on(target: str) -> Measure:
    """The function that measures on ``target``; it takes what :func:`~edgekit_runtime.bench.run_bench` takes.

    Raises:
        UsageError: no such target.
    """
    if target not in TARGETS:
        raise UsageError(f"there is no target {target!r}", f"use one of {', '.join(TARGETS)}")
    return TARGETS[target]()


def _local() -> Measure:
    from edgekit_runtime.bench import run_bench

    return run_bench


def _browser() -> Measure:
    from edgekit.site.bench import run_browser_bench

    return run_browser_bench


TARGETS: dict[str, Callable[[], Measure]] = {"local": _local, "browser": _browser}
