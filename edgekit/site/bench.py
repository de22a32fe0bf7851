"""The device benchmark inside a real Chromium, driven by Playwright: the same document as the native one."""

from __future__ import annotations

import datetime
import logging
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.site.assets import PACKAGES
from edgekit.site.build import build_site
from edgekit.site.serve import LOOPBACK, site_app
from edgekit_runtime import machine
from edgekit_runtime.bench import BENCH_SCHEMA, bench_prompts, figures
from edgekit_runtime.errors import InputError, TargetError, UsageError
from edgekit_runtime.runtime import BASE, Runtime

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

log = logging.getLogger(__name__)

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SWITCHES = 10
START_SECONDS = 20
# No window, no calls home; the sandbox needs privileges that containers lack.
OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")

_LOAD = """async (threads) => {
  const { load } = await import("./index.js");
  const start = performance.now();
  globalThis.runtime = await load("../", threads ? { threads } : {});
  return { opened: performance.now() - start, ...runtime.info };
}"""
_START = "async () => { const start = performance.now(); await runtime.start(); return performance.now() - start; }"
# One greedy answer of exactly `count` tokens; the first piece of text may come some tokens after the first token.
_ANSWER = """async ({ prompt, adapter, count }) => {
  const digest = runtime.manifest.adapters.find((entry) => entry.name === adapter)?.digest;
  const sampling = { temperature: 0, top_k: 40, top_p: 0.95, seed: 0 };
  const request = { prompt, adapter: digest, maxTokens: count, sampling, stop: [], reuse: false, ignoreEnd: true };
  const start = performance.now();
  let first, last;
  for await (const chunk of runtime.engine.complete(request)) { first ??= performance.now(); last = chunk; }
  return { ttft: first - start, total: performance.now() - start, ...last.timings };
}"""


def run_browser_bench(
    bundle: Path,
    *,
    repeats: int = 5,
    prompt_tokens: int = 256,
    decode_tokens: int = 64,
    threads: int | None = None,
) -> dict[str, Any]:
    """Measure a bundle in a page of this machine's Chromium, after a warm-up, with greedy decoding.

    ``open_verified_ms`` is the first visit: download over loopback, digests, start.  ``load_ms`` is the engine's start
    from the browser's storage.  ``switch_ms`` is what a request costs more after one with another adapter than after
    one with the same.  ``peak_rss_mb`` is that of the page's process.

    Args:
        bundle: folder or tar.
        repeats: how often each figure is taken.
        prompt_tokens: length of the prompt that prefill and TTFT are measured on.
        decode_tokens: tokens decoded after it.
        threads: as many as the page takes by itself when None.

    Raises:
        TargetError: no Chromium, or no Playwright.
        InputError: a bundle that browsers can't run.
        UsageError: counts below 1.
    """
    if min(repeats, prompt_tokens, decode_tokens) < 1:
        raise UsageError("repeats and token counts have to be at least 1", "raise them")
    with Runtime(bundle, threads=1) as native:
        tokens = bench_prompts(native, repeats + 1, prompt_tokens)
        prompts = [b"".join(map(native.piece, each)).decode("utf-8", "replace") for each in tokens]
        manifest, base_bytes = native.manifest, native.engine_file.stat().st_size
        sizes = {entry.name: native.adapter_path(entry.name).stat().st_size for entry in manifest.adapters}
    with tempfile.TemporaryDirectory(prefix="edgekit-bench-") as folder:
        site = Path(folder) / "site"
        build_site(bundle, site)
        with _hosted(site) as url, _browser() as browser:
            page = browser.new_page()
            page.set_default_timeout(0)
            page.goto(f"{url}edgekit-runtime/blank.html")
            log.info("opening %s in Chromium %s", manifest.name, browser.version)
            said = _run(page, _LOAD, threads)
            load = [_run(page, _START) for _ in range(repeats)]
            results = []
            for name in (BASE, *sizes):
                log.info("measuring %s", name)
                result = _subject(page, name, prompts, decode_tokens)
                results.append(result | {"file_bytes": sizes.get(name, base_bytes)})
            for name, result in zip(sizes, results[1:], strict=True):
                result["switch_ms"] = figures(_switches(page, name))
            peak = _page_peak_mb()
            version = browser.version
    engine = PACKAGES[0]
    return {
        "schema": BENCH_SCHEMA,
        "bundle": {
            "name": manifest.name,
            "version": manifest.version,
            "quantization": manifest.base.quantization,
            "base_bytes": base_bytes,
        },
        "machine": machine.describe() | {"browser": f"Chromium {version}"},
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


def _subject(page: Page, name: str, prompts: Sequence[str], decode_tokens: int) -> dict[str, Any]:
    """TTFT, prefill and decode of the base or of one adapter; the first answer warms up."""
    answers = [
        _run(page, _ANSWER, {"prompt": prompt, "adapter": name, "count": decode_tokens + 1}) for prompt in prompts
    ][1:]
    return {
        "adapter": name,
        "ttft_ms": figures([each["ttft"] for each in answers]),
        "prefill_tps": figures([each["prompt_per_second"] for each in answers], fast=True),
        "decode_tps": figures([each["predicted_per_second"] for each in answers], fast=True),
    }


def _switches(page: Page, name: str) -> list[float]:
    """Pairs: a short request after one with the base, and after one with the same adapter."""

    def ask(adapter: str) -> float:
        took: float = _run(page, _ANSWER, {"prompt": "ok", "adapter": adapter, "count": 1})["total"]
        return took

    extra = []
    for _ in range(SWITCHES):
        ask(BASE)
        extra.append(ask(name) - ask(name))
    return extra


def _run(page: Page, code: str, argument: Any = None) -> Any:
    from playwright.sync_api import Error

    try:
        return page.evaluate(code, argument)
    except Error as error:
        raise InputError(f"the page failed: {error.message.splitlines()[0]}", "see docs/phones.md for limits") from None


@contextmanager
def _browser() -> Iterator[Browser]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise TargetError("Playwright is not installed", "pip install 'edgekit[browser]'") from None
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        raise TargetError("there is no Chromium on this machine", "install it: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*OPTIONS])
        try:
            yield browser
        finally:
            browser.close()


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


def _page_peak_mb() -> float | None:
    """Peak RSS of the largest Chromium process that we started, which is the page's; None where Linux doesn't tell."""
    import psutil

    peaks = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "--type=renderer" in process.cmdline():
                peaks.append(machine.peak_rss_mb(process.pid))
        except (psutil.Error, OSError):
            continue
    return max(peaks, default=None)
