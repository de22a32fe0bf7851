"""The device runtime under load: batching, prompt caching, HTTP, adapters that come, a thousand adapters.

    python benchmarks/service.py BUNDLE [--only batching ttft activated http ipc install many] [--repeats 5] [--json]
    python benchmarks/service.py BUNDLE --only against --llama-server PATH

The second compares with llama.cpp's own server, built from the source that the installed llama-cpp-python has inside.

Everything is taken in pairs inside one run.  Adapters are copies of one of the bundle's with other metadata, so that
each has a digest of its own and is loaded by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from edgekit_exporters.gguf.metadata import rewrite_metadata
from edgekit_runtime import BASE, Runtime
from edgekit_runtime.bench.bare import BareLoop
from edgekit_runtime.engines.llama.library import model_parameters
from edgekit_runtime.formats.adapter import KEY_INVOCATION
from edgekit_runtime.formats.bundle import open_bundle
from edgekit_runtime.runtime.generation import Stream
from edgekit_runtime.server.supervisor import Supervisor
from edgekit_runtime.store import Store

REQUESTS = 8
ANSWER = 96
PROMPT = "part: bracket {}; finding: scratch 0.{} mm on the left edge; report"
SYSTEM_WORDS = 190  # about 256 tokens with the template


def main() -> None:
    """Run what is asked for and print one line a figure, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument(
        "--only", nargs="+", choices=list(FIGURES), default=[name for name in FIGURES if name != "against"]
    )
    parser.add_argument("--llama-server", type=Path, help="the program to compare with")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.only:
            folder = Path(scratch) / name
            folder.mkdir()
            results[name] = FIGURES[name](options, folder)
            if not options.json:
                for key, value in results[name].items():
                    print(f"{name:10} {key:44} {value:10.3f}", flush=True)
    if options.json:
        print(json.dumps(results, indent=1))


def copies(bundle: Path, count: int, folder: Path, **metadata: Any) -> list[Path]:
    """Adapter files that differ in name and digest alone."""
    with open_bundle(bundle) as opened:
        source = opened.adapter_path(opened.manifest.adapters[0].name)
        files = [folder / f"a{number}.gguf" for number in range(count)]
        for number, file in enumerate(files):
            rewrite_metadata(source, file, {"edgekit.name": f"a{number}", **metadata})
    return files


def p95(values: list[float]) -> float:
    """The 95th percentile, nearest rank."""
    return sorted(values)[min(int(0.95 * len(values)), len(values) - 1)]


def batching(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """8 requests at once, over 4 adapters and over one, against the same one after another."""
    results: dict[str, float] = {}
    files = copies(options.bundle, 4, folder)
    with Runtime(options.bundle, threads=options.threads, context=512, parallel=REQUESTS) as runtime:
        for file in files:
            runtime.add_adapter(file)
        for kind, used in (("4 adapters", [f"a{number % 4}" for number in range(REQUESTS)]), ("1 adapter", ["a0"] * 8)):
            together, after, latency, latency_after = [], [], [], []
            for number in range(options.repeats + 1):
                one = _run(runtime, used, at_once=False)
                many = _run(runtime, used, at_once=True)
                if number:  # the first pair warms up
                    together.append(max(many))
                    after.append(max(one))
                    latency.append(p95(many))
                    latency_after.append(p95(one))
            ratios = [b / a for a, b in zip(together, after, strict=True)]
            results[f"throughput, {REQUESTS} over {kind} / in turn"] = statistics.median(ratios)
            results[f"p95 latency, {REQUESTS} over {kind} / in turn"] = statistics.median(
                [a / b for a, b in zip(latency, latency_after, strict=True)]
            )
    return results


def _run(runtime: Runtime, adapters: list[str], *, at_once: bool) -> list[float]:
    """Seconds from the common start until each request has its whole answer."""
    runtime.engine.holder = None  # no KV cache of the run before
    start = time.perf_counter()
    ends: list[float] = []

    def ask(number: int) -> Stream:
        prompt = PROMPT.format(number, number)
        return runtime.stream(prompt, adapter=adapters[number], max_tokens=ANSWER, temperature=0.8, seed=number)

    if not at_once:
        for number in range(len(adapters)):
            for _ in (stream := ask(number)):
                pass
            ends.append(time.perf_counter() - start)
            assert stream.result is not None
        return ends
    asked = [ask(number) for number in range(len(adapters))]
    waiting = list(asked)
    while waiting:
        runtime.step()
        for stream in [each for each in waiting if each.ended]:
            waiting.remove(stream)
            ends.append(time.perf_counter() - start)
    return ends


def ttft(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """TTFT with an adapter prompt of about 256 tokens, cached and not, in pairs; also from disk after a restart."""
    words = ("inspect", "the", "part", "and", "report", "kind", "place", "size", "verdict", "in", "one", "line")
    system = " ".join(words[number % len(words)] for number in range(SYSTEM_WORDS))
    file = copies(options.bundle, 1, folder, **{"edgekit.system": system})[0]
    cold, warm, restarted = [], [], []
    tokens = 0
    for number in range(options.repeats + 1):
        cache = folder / f"cache-{number}"
        for times in (cold, restarted):
            with Runtime(options.bundle, threads=options.threads, context=512, parallel=4, cache=cache) as runtime:
                runtime.add_adapter(file)
                runtime.engine.batches_exactly(())
                runtime.generate("x", adapter=BASE, max_tokens=1)
                first = runtime.generate("scratch on the left", adapter="a0", max_tokens=1)
                times.append(first.timings.prefill_ms)
                if times is cold:
                    tokens = first.usage.prompt_tokens
                    for other in ("dent on the right", "stain on the top"):
                        warm.append(runtime.generate(other, adapter="a0", max_tokens=1).timings.prefill_ms)
    return {
        "prompt tokens": tokens,
        "TTFT uncached, ms": statistics.median(cold),
        "TTFT cached, ms": statistics.median(warm),
        "uncached / cached": statistics.median(cold) / statistics.median(warm),
        "uncached / from disk after a restart": statistics.median(cold) / statistics.median(restarted),
    }


def activated(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """TTFT of a long question that another adapter has just been asked: plain LoRA and activated LoRA, in pairs."""
    question = "Station 7: scratch of 0.3 mm, dent of 1 mm, stain on the flange, two screws missing. " * 36
    times: dict[str, list[float]] = {"plain": [], "activated": []}
    tokens = 0
    with Runtime(options.bundle, threads=options.threads, context=2048, parallel=2) as runtime:
        call = runtime.prompt_tokens("<|im_start|>assistant\n")
        for kind, metadata in (("plain", {}), ("activated", {KEY_INVOCATION: call})):
            (folder / kind).mkdir()
            for number, file in enumerate(copies(options.bundle, 2, folder / kind, **metadata)):
                runtime.add_adapter(file, f"{kind}{number}")
        for number in range(options.repeats + 1):
            for kind, found in times.items():
                runtime.engine.holder = None  # no KV cache of the round before
                for adapter in (f"{kind}0", f"{kind}1"):
                    answer = runtime.generate(question, adapter=adapter, max_tokens=1)
                tokens = answer.usage.prompt_tokens
                if number:
                    found.append(answer.timings.prefill_ms)
    ratios = [plain / other for plain, other in zip(*times.values(), strict=True)]
    return {
        "prompt tokens": tokens,
        "TTFT under a second adapter, plain, ms": statistics.median(times["plain"]),
        "TTFT under a second adapter, activated, ms": statistics.median(times["activated"]),
        "plain / activated": statistics.median(ratios),
    }


class Service:
    """A service on a free port, and its end."""

    def __init__(self, command: list[str], says: str) -> None:
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        self.url = said = ""
        while not self.url:
            line = self.process.stderr.readline()
            said += line
            assert line, f"the service has ended: {said}"
            found = re.search(r"http://[0-9.:]+", line)
            self.url = found[0] if found and says in line else ""
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def stream(self, **more: Any) -> tuple[list[float], dict[str, Any]]:
        """Times at which pieces of text came, and the counts."""
        times, counts, _ = self.answer(**more)
        return times, counts

    def answer(self, **more: Any) -> tuple[list[float], dict[str, Any], str]:
        """The same, and the text."""
        body = {"stream": True, "stream_options": {"include_usage": True}, "temperature": 0} | more
        times, counts, text = [], {}, ""
        with httpx.stream("POST", f"{self.url}/v1/chat/completions", json=body, timeout=120) as response:
            for line in response.iter_lines():
                if line.startswith("data: {"):
                    chunk = json.loads(line[6:])
                    counts = chunk.get("usage") or counts
                    if chunk["choices"] and chunk["choices"][0]["delta"].get("content"):
                        times.append(time.perf_counter())
                        text += chunk["choices"][0]["delta"]["content"]
        return times, counts, text

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait()


def our_service(options: argparse.Namespace, *more: str) -> Service:
    """A bundle's service."""
    command = [sys.executable, "-m", "edgekit_runtime", "serve", str(options.bundle), "--port", "0", *more]
    return Service([*command, "--threads", str(options.threads)], "serving on")


def llama_server(options: argparse.Namespace, base: Path, *more: str, port: int = 8093) -> Service:
    """llama.cpp's own, over a base's file, with the same kernels as ours."""
    command = [str(options.llama_server), "-m", str(base), *more, "-t", str(options.threads), "--port", str(port)]
    command += [] if model_parameters().use_extra_bufts else ["--no-repack"]
    return Service([*command, "--no-webui"], "listening")


def http(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Decode through HTTP streaming against a bare llama_decode loop, in turn."""
    results = {}
    with open_bundle(options.bundle) as bundle:
        bare = BareLoop(bundle.base_path, context=512, threads=options.threads)
        for parallel in (1, 4):
            service = our_service(options, "--parallel", str(parallel), "--context", "512")
            try:
                ratios = []
                for number in range(2 * options.repeats + 1):
                    question = [{"role": "user", "content": "Tell a long story about a bracket."}]
                    times, counts = service.stream(model=BASE, messages=question, max_tokens=128)
                    speed = (counts["completion_tokens"] - 1) / (times[-1] - times[0])
                    theirs = bare.decode_tps([1] * counts["prompt_tokens"], counts["completion_tokens"] - 1)
                    if number:
                        ratios.append(speed / theirs)
                results[f"HTTP decode / bare loop, --parallel {parallel}"] = statistics.median(ratios)
            finally:
                service.close()
        bare.close()
    return results


def ipc(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Decode through the engine's process against decode in this one, in turn."""
    settings: dict[str, Any] = {"threads": options.threads, "context": 512, "parallel": 4}
    question = {"prompt": "Tell a long story about a bracket.", "adapter": BASE, "max_tokens": 128, "temperature": 0.0}

    def speed(times: list[float], tokens: int) -> float:
        return (tokens - 1) / (times[-1] - times[0])

    async def through(supervisor: Supervisor) -> float:
        times, tokens = [], 0
        async for event in supervisor.answer(question):
            if event["op"] == "text":
                times.append(time.perf_counter())
            elif event["op"] == "done":
                tokens = event["value"]["usage"]["completion_tokens"]
        return speed(times, tokens)

    def here(runtime: Runtime) -> float:
        stream = runtime.stream(**question)
        times = [time.perf_counter() for _ in stream]
        return speed(times, stream.tokens)

    async def scenario() -> list[float]:
        supervisor = Supervisor({"bundle": str(options.bundle)} | settings)
        await supervisor.start()
        try:
            with Runtime(options.bundle, **settings) as runtime:
                return [await through(supervisor) / here(runtime) for _ in range(4 * options.repeats + 1)][1:]
        finally:
            await supervisor.close()

    return {"decode through the process / in process": statistics.median(asyncio.run(scenario()))}


def against(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """llama-server and ours, asked the same in turn: one request, 8 over 4 adapters, adapters that alternate."""
    words = ("inspect", "the", "part", "and", "report", "kind", "place", "size", "verdict", "in", "one", "line")
    system = " ".join(words[number % len(words)] for number in range(SYSTEM_WORDS))
    files = copies(options.bundle, 4, folder, **{"edgekit.system": system})
    names = [file.stem for file in files]
    with open_bundle(options.bundle) as bundle:
        loras = ("--lora", ",".join(map(str, files)), "--lora-init-without-apply")
        theirs = llama_server(options, bundle.base_path, *loras, "-np", "4", "-c", "4096")
    ours = our_service(options, "--parallel", "4", "--context", "1024")
    for file in files:
        body = {"lora_name": file.stem, "lora_path": str(file)}
        httpx.post(f"{ours.url}/v1/load_lora_adapter", json=body, timeout=120).raise_for_status()

    def ask(service: Service, name: str | None, text: str, tokens: int) -> tuple[float, float]:
        """Seconds to the first token, and tokens per second after it."""
        chosen: dict[str, Any] = {"model": name or BASE}
        messages = [{"role": "user", "content": text}]
        if service is theirs:
            chosen = {"lora": [{"id": number, "scale": float(each == name)} for number, each in enumerate(names)]}
            messages = [{"role": "system", "content": system}, *messages] if name else messages
        start = time.perf_counter()
        times, counts = service.stream(messages=messages, max_tokens=tokens, **chosen)
        return times[0] - start, (counts["completion_tokens"] - 1) / (times[-1] - times[0]) if tokens > 1 else 0.0

    def eight(service: Service) -> float:
        prompts = [(names[number % 4], PROMPT.format(number, number)) for number in range(REQUESTS)]
        with ThreadPoolExecutor(REQUESTS) as clients:
            start = time.perf_counter()
            list(clients.map(lambda each: ask(service, *each, ANSWER), prompts))
            return time.perf_counter() - start

    def alternating(service: Service, round_: int) -> float:
        return statistics.median(
            ask(service, names[number % 4], f"dent {round_} {number}", 1)[0] for number in range(8)
        )

    single, many, first = [], [], []
    try:
        for number in range(options.repeats + 1):
            speeds = [ask(each, None, "Tell a long story about a bracket.", 128)[1] for each in (ours, theirs)]
            times = [eight(each) for each in (ours, theirs)]
            waits = [alternating(each, number) for each in (ours, theirs)]
            if number:
                single.append(speeds[0] / speeds[1])
                many.append(times[1] / times[0])
                first.append(waits[1] / waits[0])
    finally:
        ours.close()
        theirs.close()
    return {
        "decode of one request, ours / llama-server": statistics.median(single),
        "throughput, 8 over 4 adapters, ours / llama-server": statistics.median(many),
        "TTFT, alternating adapters, llama-server / ours": statistics.median(first),
    }


def install(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """A new adapter while another request streams: until its first token, and what the other one noticed."""
    files = copies(options.bundle, options.repeats + 1, folder)
    service = our_service(options, "--parallel", "4", "--context", "512")
    live, gaps, usual = [], [], []
    try:
        for number, file in enumerate(files):
            story: list[tuple[list[float], dict[str, Any]]] = []

            def talk(story: list[tuple[list[float], dict[str, Any]]] = story) -> None:
                question = [{"role": "user", "content": "Tell a long story about a bracket."}]
                story.append(service.stream(model=BASE, messages=question, max_tokens=400))

            talking = threading.Thread(target=talk)
            talking.start()
            time.sleep(0.5)
            start = time.perf_counter()
            body = {"lora_name": file.stem, "lora_path": str(file)}
            httpx.post(f"{service.url}/v1/load_lora_adapter", json=body, timeout=120).raise_for_status()
            question = [{"role": "user", "content": "scratch"}]
            times, _ = service.stream(model=file.stem, messages=question, max_tokens=1)
            end = times[0]
            talking.join()
            steps = [b - a for a, b in zip(story[0][0], story[0][0][1:], strict=False)]
            during = [b - a for a, b in zip(story[0][0], story[0][0][1:], strict=False) if a < end + 0.1 and b > start]
            if number:
                live.append(1e3 * (end - start))
                gaps.append(1e3 * max(during, default=0.0))
                usual.append(1e3 * statistics.median(steps))
    finally:
        service.close()
    return {
        "from the call to its first token, ms": statistics.median(live),
        "longest pause of the other request, ms": statistics.median(gaps),
        "its usual pause, ms": statistics.median(usual),
    }


def many(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """1,000 adapters installed, 64 MB for loaded ones: the cold start of any of them."""
    import random

    store = Store(folder / "store", create=True)
    store.install(options.bundle)
    count = 1000
    files = copies(options.bundle, 1, folder)
    size = files[0].stat().st_size
    for number in range(count):
        rewrite_metadata(files[0], folder / "next.gguf", {"edgekit.name": f"n{number}"})
        store.install(folder / "next.gguf")
    shutil.rmtree(folder / "store" / "tmp", ignore_errors=True)
    (folder / "store" / "tmp").mkdir()
    chosen = random.Random(0)
    opened = time.perf_counter()
    with Runtime(
        folder / "store", threads=options.threads, context=512, parallel=4, adapter_memory=64_000_000
    ) as runtime:
        opened = time.perf_counter() - opened
        runtime.generate("x", adapter="n0", max_tokens=1)
        cold, read = [], []
        for _ in range(200):
            name = f"n{chosen.randrange(1, count)}"
            path = runtime.adapter_path(name)
            loads = runtime.loop.pool.loads
            start = time.perf_counter()
            path.read_bytes()
            read.append(1e3 * (time.perf_counter() - start))
            result = runtime.generate("x", adapter=name, max_tokens=1)
            if runtime.loop.pool.loads > loads:
                cold.append(result.timings.switch_ms)
        held = runtime.loop.pool.size
    return {
        "adapter file, MB": size / 1e6,
        "opening the store, s": opened,
        "cold load median, ms": statistics.median(cold),
        "cold load p95, ms": p95(cold),
        "reading the bytes alone p95, ms": p95(read),
        "memory of loaded adapters, MB": held / 1e6,
    }


FIGURES: dict[str, Callable[[argparse.Namespace, Path], dict[str, float]]] = {
    "batching": batching,
    "ttft": ttft,
    "activated": activated,
    "http": http,
    "ipc": ipc,
    "against": against,
    "install": install,
    "many": many,
}

if __name__ == "__main__":
    main()
