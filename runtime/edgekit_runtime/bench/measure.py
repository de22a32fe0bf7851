"""Taking the measurements."""

from __future__ import annotations

import datetime
import logging
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgekit_runtime import machine
from edgekit_runtime.bench.bare import bare_loop
from edgekit_runtime.bench.images import IMAGE_SIZE, measure_images, parse_size
from edgekit_runtime.bench.statistics import figures
from edgekit_runtime.engines import BARE, Engine, Sampling, Stack, generate
from edgekit_runtime.engines.opening import open_engine
from edgekit_runtime.errors import UsageError
from edgekit_runtime.formats.base_files import BaseFiles
from edgekit_runtime.formats.gguf import GgufFile, read_gguf
from edgekit_runtime.formats.kv_cache import with_kv_cache
from edgekit_runtime.formats.model_facts import gguf_facts
from edgekit_runtime.formats.onnx_adapter import is_onnx_adapter, read_onnx_adapter
from edgekit_runtime.formats.onnx_base import DATA_FILE, KEY_LAYERS
from edgekit_runtime.runtime import BASE, Runtime
from edgekit_runtime.runtime.options import AS_IT_IS

log = logging.getLogger(__name__)

BENCH_SCHEMA = "edgekit.bench/1"
SWITCHES = 50
BARE_TOKENS = 64
BARE_PROMPT = "Write a long story about a machine that learns to see."
FLOAT_BYTES = 4

Figures = dict[str, float]


def run_bench(
    bundle: Path,
    *,
    repeats: int = 5,
    prompt_tokens: int = 256,
    decode_tokens: int = 64,
    threads: int | None = None,
    kv_cache: str | None = None,
    quick: bool = False,
    image_size: str = IMAGE_SIZE,
) -> dict[str, Any]:
    """Measure a bundle or store on this machine, after a warm-up, with greedy decoding of random prompts.

    Args:
        bundle: folder, tar or device store.
        repeats: how often each figure is taken.
        prompt_tokens: length of the prompt that prefill and TTFT are measured on.
        decode_tokens: tokens decoded after it.
        threads: as in :class:`~edgekit_runtime.Runtime`, as is the next.
        kv_cache: its type.
        quick: everything once and short, to see that it works; the figures mean little.
        image_size: of the images that a caption bundle is asked about, ``WxH`` pixels.

    Returns:
        The JSON document (schema ``edgekit.bench/1``): ms, tokens/s, MiB and bytes as the field names say; each
        figure as median, p95 (the slow end) and all samples.

    Raises:
        UsageError: counts below 1, or no image size.
    """
    if min(repeats, prompt_tokens, decode_tokens) < 1:
        raise UsageError("repeats and token counts have to be at least 1", "raise them")
    size = parse_size(image_size)
    if quick:
        repeats, prompt_tokens, decode_tokens = 1, min(prompt_tokens, 8), min(decode_tokens, 2)
    before = machine.conditions()
    start = time.perf_counter()
    with Runtime(bundle, threads=threads, kv_cache=kv_cache, lookahead=False, probe=True) as runtime:
        opened = 1e3 * (time.perf_counter() - start)
        used = runtime.engine.threads
        prompts = bench_prompts(runtime, repeats + 1, prompt_tokens)
        asked: dict[str, Stack] = {BASE: BARE}
        asked |= {entry.name: tuple(entry.scales.items()) for entry in runtime.manifest.subjects}
        header = read_gguf(runtime.base_files.header)
        results = []
        for name, stack in asked.items():
            log.info("measuring %s", name)
            results.append(_subject(runtime, name, stack, header, prompts, decode_tokens, repeats, quick=quick))
        sees = runtime.manifest.base.projector is not None
        if sees:
            log.info("measuring images of %s", image_size)
            with_images = measure_images(runtime, size, repeats)
            results = [result | with_images[result["adapter"]] for result in results]
        rss = machine.peak_rss_mb()  # before what only a benchmark has in memory: a large buffer, the base once more
        log.info("measuring memory bandwidth")
        bandwidth = machine.memory_bandwidth(used)
        results = [result | _roofline(result, bandwidth) for result in results]
        log.info("measuring how long the base takes to load")
        load = _load_times(runtime, repeats)
        log.info("measuring against a bare decode loop")
        overhead = _against_bare(runtime, repeats, tokens=2 if quick else BARE_TOKENS)
        return {
            "schema": BENCH_SCHEMA,
            "bundle": {
                "name": runtime.manifest.name,
                "version": runtime.manifest.version,
                "quantization": runtime.manifest.base.quantization,
                "base_bytes": runtime.base_files.size,
            },
            "machine": machine.describe(),
            "engine": runtime.engine.info(),
            "settings": {
                "threads": used,
                "context": runtime.engine.context,
                "prompt_tokens": prompt_tokens,
                "decode_tokens": decode_tokens,
                "repeats": repeats,
                "quick": quick,
                **({"image_size": image_size} if sees else {}),
            },
            "target": {"kind": "local", "name": "this machine", "emulated": False},
            "conditions": {"before": before, "after": machine.conditions()},
            "measured": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "memory_bandwidth_gbs": bandwidth / 1e9,
            "open_verified_ms": opened,
            "load_ms": load,
            "peak_rss_mb": rss,
            "decode_vs_bare": overhead,
            "results": results,
        }


def _subject(
    runtime: Runtime,
    name: str,
    stack: Stack,
    header: GgufFile,
    prompts: list[list[int]],
    decode_tokens: int,
    repeats: int,
    *,
    quick: bool,
) -> dict[str, Any]:
    """All figures of the base, of one adapter, or of a stack of adapters that were measured before."""
    engine = runtime.engine
    result: dict[str, Any] = {"adapter": name, "file_bytes": runtime.base_files.size}
    paths = [runtime.adapter_path(part) for part, _ in stack]
    before = None
    if stack:
        result["file_bytes"] = sum(path.stat().st_size for path in paths)
        if name == stack[0][0]:
            result["cold_load_ms"] = figures(_cold_loads(engine, name, paths[0], repeats))
            engine.load_adapter(name, paths[0])
            before = engine.virtual_tokens(name)
        result |= _switches(engine, stack, prompts[0], count=1 if quick else SWITCHES)
    extra = sum(map(_adapter_bytes, paths))
    engine.select(stack)
    ttft, prefill, decode = [], [], []
    for number, prompt in enumerate(prompts):
        start = time.perf_counter()
        generation = generate(engine, prompt, Sampling(), before)
        next(generation)
        first = time.perf_counter()
        for _ in range(decode_tokens):
            next(generation)
        end = time.perf_counter()
        generation.close()  # type: ignore[attr-defined]
        if number:  # the first one warms up
            ttft.append(1e3 * (first - start))
            prefill.append(len(prompt) / (first - start))
            decode.append(decode_tokens / (end - first))
    read = _bytes_per_token(header, runtime.base_files, len(prompts[0]) + decode_tokens // 2) + extra
    return result | {
        "ttft_ms": figures(ttft),
        "prefill_tps": figures(prefill, fast=True),
        "decode_tps": figures(decode, fast=True),
        "decode_bytes_per_token": read,
    }


def _roofline(result: dict[str, Any], bandwidth: float) -> dict[str, float]:
    """How fast the memory lets a result's weights be read, and how much of that decoding reaches."""
    roof = bandwidth / result["decode_bytes_per_token"]
    return {"decode_roofline_tps": roof, "decode_roofline_share": result["decode_tps"]["median"] / roof}


def _bytes_per_token(header: GgufFile, base: BaseFiles, position: int) -> int:
    """What one decode step reads: every weight once, and the KV cache up to ``position``.

    Of an untied input embedding only one row is read; a tied one is the output matrix too.
    """
    if KEY_LAYERS in header.metadata:  # an ONNX base: the header has no tensors
        return _onnx_bytes_per_token(header)
    weights = sum(tensor.size for tensor in header.tensors.values())
    if "output.weight" in header.tensors:
        weights -= header.tensors["token_embd.weight"].size
    return weights + with_kv_cache(gguf_facts(header), base.kv_cache, base.model.name).cache_bytes(position)


def _onnx_bytes_per_token(header: GgufFile) -> int:
    """All weights once; a tied embedding is the output matrix, and the KV cache is small beside them."""
    return (header.path.parent / DATA_FILE).stat().st_size


def _adapter_bytes(path: Path) -> int:
    """A and B of all layers, in bytes."""
    if is_onnx_adapter(path):
        shapes = [parameter.shape for parameter in read_onnx_adapter(path).parameters.values()]
        return sum(rows * columns * FLOAT_BYTES for rows, columns in shapes)
    return sum(tensor.size for tensor in read_gguf(path).tensors.values())


def _cold_loads(engine: Engine, name: str, path: Path, repeats: int) -> list[float]:
    times = []
    for _ in range(repeats):
        engine.unload_adapter(name)
        times.append(_timed(lambda: engine.load_adapter(name, path)))
    return times


def _switches(engine: Engine, stack: Stack, prompt: Sequence[int], *, count: int) -> dict[str, Figures]:
    """Switching to adapters and back: the call, and what the next decode step costs more than a usual one."""
    to_adapter, after, usual = [], [], []
    generation = generate(engine, prompt, Sampling())
    next(generation)
    for number in range(count + 1):
        engine.select(BARE)
        next(generation)
        to = _timed(lambda: engine.select(stack))
        first = _timed(lambda: next(generation))
        second = _timed(lambda: next(generation))
        if number:
            to_adapter.append(to)
            after.append(first)
            usual.append(second)
    generation.close()  # type: ignore[attr-defined]
    extra = [first - second for first, second in zip(after, usual, strict=True)]
    return {"switch_ms": figures(to_adapter), "switch_next_step_extra_ms": figures(extra)}


def _load_times(runtime: Runtime, repeats: int) -> Figures:
    """Loading the base with a warm file cache, context included."""

    def load() -> None:
        open_engine(runtime.base_files, context=runtime.engine.context, threads=runtime.engine.threads).close()

    load()
    return figures([_timed(load) for _ in range(repeats)])


def _against_bare(runtime: Runtime, repeats: int, *, tokens: int) -> dict[str, Any]:
    """The whole runtime (template, sampling, text) against llama_decode alone: pairs in one run."""
    bare = bare_loop(runtime.base_files, context=runtime.engine.context, threads=runtime.engine.threads)
    ratios, runtimes, bares = [], [], []
    try:
        for number in range(2 * repeats + 2):  # twice as many as of the rest: a ratio near 1 drowns in noise
            ours = runtime.generate(BARE_PROMPT, adapter=BASE, max_tokens=tokens, **AS_IT_IS)
            prompt = [1] * ours.usage.prompt_tokens
            theirs = bare.decode_tps(prompt, ours.usage.completion_tokens)
            if number:
                ratios.append(ours.timings.decode_tps / theirs)
                runtimes.append(ours.timings.decode_tps)
                bares.append(theirs)
    finally:
        bare.close()
    return {
        "ratio": figures(ratios, fast=True),
        "runtime_tps": figures(runtimes, fast=True),
        "bare_tps": figures(bares, fast=True),
        "tokens": ours.usage.completion_tokens,
    }


def bench_prompts(runtime: Runtime, count: int, length: int) -> list[list[int]]:
    """Prompts of random ordinary words, the same on every machine."""
    chosen = random.Random(0)
    words = [
        "the",
        "part",
        "has",
        "a",
        "scratch",
        "of",
        "two",
        "tenths",
        "near",
        "edge",
        "seven",
        "on",
        "station",
        "line",
        "bracket",
        "housing",
        "ok",
    ]
    prompts = []
    for _ in range(count):
        text = " ".join(chosen.choices(words, k=2 * length))
        prompts.append(runtime.prompt_tokens(text)[:length])
    return prompts


def _timed(action: Callable[[], object]) -> float:
    """Milliseconds."""
    start = time.perf_counter()
    action()
    return 1e3 * (time.perf_counter() - start)
