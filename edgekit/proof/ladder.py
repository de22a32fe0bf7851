"""Choosing a quantisation by measurement: each one with the adapters applied, on the device's engine."""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgekit.evaluation.artifact import Artifact
from edgekit.evaluation.finite import NotFinite
from edgekit.project import Gate
from edgekit.proof.reference import Reference
from edgekit.proof.tokens import compare_tokens
from edgekit.proof.verdict import at_least, at_most
from edgekit_exporters.gguf.quantize import MEASURED
from edgekit_runtime.engines import BARE, Sampling, generate
from edgekit_runtime.errors import GateRefused

log = logging.getLogger(__name__)

SPEED_PROMPT, SPEED_TOKENS, SPEED_REPEATS = 32, 32, 3
MB = 1_000_000


@dataclass(frozen=True)
class Rung:
    """One quantisation.

    Attributes:
        quantization: its name.
        size_mb: base and adapters, 10^6 bytes.
        mean_kl: against the trained model, the worst of the adapters, nats per token; NaN when the engine gives no
            numbers.
        decode_tps: tokens per second on this machine, the slowest of the adapters.
        refused: why it can't be chosen; empty when it can.
    """

    quantization: str
    size_mb: float
    mean_kl: float
    decode_tps: float
    refused: Sequence[str]


def measure_rung(
    bundle: Path,
    references: Sequence[Reference],
    gate: Gate,
    *,
    max_mb: float | None = None,
    min_decode_tps: float | None = None,
) -> Rung:
    """Measure one bundle of the ladder."""
    with Artifact(bundle) as artifact:
        manifest = artifact.runtime.manifest
        size = sum(entry.size for entry in manifest.files if entry.path.startswith(("base/", "adapters/"))) / MB
        kl = _worst_kl(artifact, references)
        names = [entry.name for entry in manifest.adapters]
        speed = min(_decode_tps(artifact, name) for name in names) if names else _decode_tps(artifact, None)
    reasons = []
    if not at_most(kl, gate.max_mean_kl):
        reasons.append(f"mean KL {kl:.3f} > {gate.max_mean_kl:g}")
    if max_mb is not None and not at_most(size, max_mb):
        reasons.append(f"{size:.0f} MB > {max_mb:g}")
    if min_decode_tps is not None and not at_least(speed, min_decode_tps):
        reasons.append(f"{speed:.0f} tokens/s < {min_decode_tps:g}")
    rung = Rung(manifest.base.quantization, size, kl, speed, reasons)
    log.info("%-7s %7.1f MB  KL %.4f  %6.1f tokens/s  %s", *vars(rung).values())
    return rung


def _worst_kl(artifact: Artifact, references: Sequence[Reference]) -> float:
    """NaN where the engine gives no numbers: one quantisation may overflow where another does not."""
    try:
        return float(np.max([compare_tokens(artifact, reference).mean_kl for reference in references]))
    except NotFinite as error:
        log.warning("%s", error.problem)
        return math.nan


def climb(measure: Callable[[str], Rung]) -> list[Rung]:
    """Measure the whole ladder and order it: what may be chosen first, the smallest of it first.

    Raises:
        GateRefused: none may be chosen.
    """
    rungs = sorted(map(measure, MEASURED), key=lambda rung: (bool(rung.refused), rung.size_mb, -rung.decode_tps))
    if rungs[0].refused:
        tried = "; ".join(f"{rung.quantization}: {', '.join(rung.refused)}" for rung in rungs)
        raise GateRefused(
            f"no quantization is good enough ({tried})",
            "loosen --max-mb, --min-decode-tps or the gate, or train with base_precision: gguf at the one you want",
        )
    return rungs


def pareto_front(rungs: Sequence[Rung]) -> list[Rung]:
    """Those that no other one beats in quality, size and speed at once, by size; each figure of them is a number."""
    rungs = [rung for rung in rungs if all(map(math.isfinite, (rung.mean_kl, rung.size_mb, rung.decode_tps)))]

    def beats(one: Rung, other: Rung) -> bool:
        better = (one.mean_kl - other.mean_kl, one.size_mb - other.size_mb, other.decode_tps - one.decode_tps)
        return all(difference <= 0 for difference in better) and any(difference < 0 for difference in better)

    front = [rung for rung in rungs if not any(beats(other, rung) for other in rungs)]
    return sorted(front, key=lambda rung: rung.size_mb)


def _decode_tps(artifact: Artifact, adapter: str | None) -> float:
    engine = artifact.runtime.engine
    if adapter is not None:
        engine.load_adapter(adapter, artifact.runtime.adapter_path(adapter))
    engine.select(BARE if adapter is None else ((adapter, 1.0),))
    before = None if adapter is None else engine.virtual_tokens(adapter)
    prompt = artifact.runtime.prompt_tokens("part " * SPEED_PROMPT)[:SPEED_PROMPT]
    speeds = []
    for _ in range(SPEED_REPEATS + 1):
        generation = generate(engine, prompt, Sampling(), before)
        next(generation)
        start = time.perf_counter()
        for _ in range(SPEED_TOKENS):
            next(generation)
        speeds.append(SPEED_TOKENS / (time.perf_counter() - start))
        generation.close()  # type: ignore[attr-defined]
    return statistics.median(speeds[1:])  # the first one warms up
