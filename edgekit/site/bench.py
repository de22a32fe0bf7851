"""The device benchmark inside a page of a real browser: the same document as the native one."""

from __future__ import annotations

import datetime
import logging
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgekit.site.assets import PACKAGES
from edgekit.site.browsers import Tab, open_tab
from edgekit.site.build import build_site
from edgekit.site.serve import LOOPBACK, site_app
from edgekit_runtime import machine
from edgekit_runtime.bench import BENCH_SCHEMA, bench_prompts, figures
from edgekit_runtime.errors import UsageError
from edgekit_runtime.runtime import BASE, Runtime

log = logging.getLogger(__name__)

SWITCHES = 10
START_SECONDS = 20

_LOAD = """async (threads) => {
  const { load } = await import("./index.js");
  const start = performance.now();
  globalThis.runtime = await load("../", threads ? { threads } : {});
  return { opened: performance.now() - start, ...runtime.info };
}"""
_START = "async () => { const start = performance.now(); await runtime.start(); return performance.now() - start; }"
# One greedy answer of exactly `count` tokens; the first piece of text may come some tokens after the first token.
_ANSWER = """async ({ prompt, adapter, count }) => {
  const scales = adapter === "base" ? {} : runtime.adapters.subject(adapter).scales;
  const sampling = { temperature: 0, top_k: 40, top_p: 0.95, seed: 0 };
  const request = { prompt, scales, maxTokens: count, sampling, stop: [], reuse: false, ignoreEnd: true };
  const start = performance.now();
  let first, last;
  for await (const chunk of runtime.engine.complete(request)) { first ??= performance.now(); last = chunk; }
  return { ttft: first - start, total: performance.now() - start, ...last.timings };
}"""


def run_browser_bench(
    bundle: Path,
    *,
    browser: str = "chromium",
    repeats: int = 5,
    prompt_tokens: int = 256,
    decode_tokens: int = 64,
    threads: int | None = None,
) -> dict[str, Any]:
    """Measure a bundle in a page of a browser of this machine, after a warm-up, with greedy decoding.

    ``open_verified_ms`` is the first visit: download over loopback, digests, start.  ``load_ms`` is the engine's start
    from the browser's storage.  ``switch_ms`` is what a request costs more after one with another adapter than after
    one with the same.  ``peak_rss_mb`` is that of the page's process.

    Args:
        bundle: folder or tar.
        browser: one of :data:`~edgekit.site.browsers.BROWSERS`.
        repeats: how often each figure is taken.
        prompt_tokens: length of the prompt that prefill and TTFT are measured on.
        decode_tokens: tokens decoded after it.
        threads: as many as the page takes by itself when None.

    Raises:
        TargetError: the browser is not installed, or what drives it.
        InputError: a bundle that browsers can't run.
        UsageError: counts below 1, or no such browser.
    """
    if min(repeats, prompt_tokens, decode_tokens) < 1:
        raise UsageError("repeats and token counts have to be at least 1", "raise them")
    tab = open_tab(browser)
    with Runtime(bundle, threads=1) as native:
        tokens = bench_prompts(native, repeats + 1, prompt_tokens)
        prompts = [b"".join(map(native.piece, each)).decode("utf-8", "replace") for each in tokens]
        manifest, base_bytes = native.manifest, native.engine_file.stat().st_size
        sizes = {entry.name: native.adapter_path(entry.name).stat().st_size for entry in manifest.adapters}
    with tempfile.TemporaryDirectory(prefix="edgekit-bench-") as folder:
        site = Path(folder) / "site"
        build_site(bundle, site)
        with _hosted(site) as url, tab as page:
            page.goto(f"{url}edgekit-runtime/blank.html")
            log.info("opening %s in %s", manifest.name, page.name)
            said = page.run(_LOAD, threads)
            load = [page.run(_START) for _ in range(repeats)]
            results = []
            for name in (BASE, *sizes):
                log.info("measuring %s", name)
                result = _subject(page, name, prompts, decode_tokens)
                results.append(result | {"file_bytes": sizes.get(name, base_bytes)})
            for name, result in zip(sizes, results[1:], strict=True):
                result["switch_ms"] = figures(_switches(page, name))
            peak = page.peak_mb()
    engine = PACKAGES[0]
    return {
        "schema": BENCH_SCHEMA,
        "bundle": {
            "name": manifest.name,
            "version": manifest.version,
            "quantization": manifest.base.quantization,
            "base_bytes": base_bytes,
        },
        "machine": machine.describe() | {"browser": page.name},
        "engine": {"name": "wllama", "version": f"{engine.name} {engine.version}"},
        "settings": {
            "threads": said["threads"],
            "context": said["context"],
            "prompt_tokens": prompt_tokens,
            "decode_tokens": decode_tokens,
            "repeats": repeats,
        },
        "measured": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "open_verified_ms": said["opened"],
        "load_ms": figures(load),
        "peak_rss_mb": peak,
        "results": results,
    }


def _subject(page: Tab, name: str, prompts: Sequence[str], decode_tokens: int) -> dict[str, Any]:
    """TTFT, prefill and decode of the base or of one adapter; the first answer warms up."""
    answers = [
        page.run(_ANSWER, {"prompt": prompt, "adapter": name, "count": decode_tokens + 1}) for prompt in prompts
    ][1:]
    return {
        "adapter": name,
        "ttft_ms": figures([each["ttft"] for each in answers]),
        "prefill_tps": figures([each["prompt_per_second"] for each in answers], fast=True),
        "decode_tps": figures([each["predicted_per_second"] for each in answers], fast=True),
    }


def _switches(page: Tab, name: str) -> list[float]:
    """Pairs: a short request after one with the base, and after one with the same adapter."""

    def ask(adapter: str) -> float:
        took: float = page.run(_ANSWER, {"prompt": "ok", "adapter": adapter, "count": 1})["total"]
        return took

    extra = []
    for _ in range(SWITCHES):
        ask(BASE)
        extra.append(ask(name) - ask(name))
    return extra


@contextmanager
def _hosted(site: Path) -> Iterator[str]:
    """The site on a free loopback port."""
    import uvicorn

    listener = socket.socket()
    listener.bind((LOOPBACK, 0))
    server = uvicorn.Server(uvicorn.Config(site_app(site), log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    end = time.monotonic() + START_SECONDS
    while not server.started and time.monotonic() < end:
        time.sleep(0.01)
    try:
        yield f"http://{LOOPBACK}:{listener.getsockname()[1]}/"
    finally:
        server.should_exit = server.force_exit = True
        thread.join(START_SECONDS)
