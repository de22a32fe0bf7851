"""Many adapters on one device: requests for 20 to 1,000 of them, beside llama.cpp's own server.

    python benchmarks/many.py PROJECT BUNDLE --llama-server PATH [--adapters 20 100] [--rate 1.0] [--requests 60]

The workload of EdgeLoRA (https://arxiv.org/abs/2507.01438): adapters are asked for by Zipf's law, requests arrive as a
Poisson process.  Both servers get the same requests at the same moments, in turns.  Ours holds as many adapters as
``--memory`` allows and reads others when they are asked for; llama-server reads all of them when it starts.

Adapters are copies of the bundle's, each with a digest of its own; requests are their evaluation rows.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import itertools
import os
import random
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from edgekit.data import load_rows
from edgekit.project import Project, load_project
from edgekit_exporters.gguf.metadata import rewrite_metadata
from edgekit_runtime.bench.report import aligned
from edgekit_runtime.formats.adapter import KEY_NAME
from edgekit_runtime.formats.bundle import file_digest, open_bundle
from edgekit_runtime.formats.manifest import MANIFEST_FILE, AdapterEntry, FileEntry, Manifest
from service import Service, llama_server, our_service

WARM_UP = 4  # requests before the clock starts
PORT = 8141


@dataclass(frozen=True)
class Arrival:
    """A request: seconds after the start, its adapter's number, and what it asks."""

    at: float
    adapter: int
    messages: list[dict[str, Any]]


@dataclass(frozen=True)
class Run:
    """What a server made of the requests: seconds until the last answer, each one's latency, tokens of all answers."""

    seconds: float
    latencies: list[float]
    tokens: int


def main() -> None:
    """Print a table: throughput and latency of both, for each number of adapters."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--llama-server", type=Path, required=True, help="of the same source as the engine")
    parser.add_argument("--adapters", type=int, nargs="+", default=[20, 100])
    parser.add_argument("--rate", type=float, default=1.0, help="requests a second, on average")
    parser.add_argument("--requests", type=int, default=60)
    parser.add_argument("--skew", type=float, default=1.0, help="exponent of Zipf's law")
    parser.add_argument("--tokens", type=int, default=32, help="of an answer, at most")
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--memory", type=int, default=128, help="MB for adapters, of ours")
    parser.add_argument("--rounds", type=int, default=2, help="that each server gets, in turns")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--exact", choices=("on", "off"), default="on", help="of ours")
    options = parser.parse_args()
    project = load_project(options.project)
    table = [["adapters", "server", "answers/s", "tokens/s", "latency median s", "p95 s", "adapters read", "memory MB"]]
    for count in options.adapters:
        with tempfile.TemporaryDirectory() as folder, open_bundle(options.bundle) as bundle:
            manifest = copied(bundle.root, bundle.manifest, count, Path(folder))
            arrivals = workload(options, project, bundle.manifest, count)
            for line in measured(options, Path(folder), manifest, arrivals):
                table.append([str(count), *line])
                print("\n".join(aligned(table)), flush=True)


def copied(source: Path, manifest: Manifest, count: int, folder: Path) -> Manifest:
    """A bundle of the same base whose adapters are ``count`` copies of the source's, by turns."""
    originals = list(manifest.adapters)
    entries: list[AdapterEntry] = []
    files = [file for file in manifest.files if file.path.startswith("base/")]
    for file in files:
        (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / file.path, folder / file.path)
    (folder / "adapters").mkdir()
    for number, entry in zip(range(count), itertools.cycle(originals), strict=False):
        name = f"n{number}"
        path = f"adapters/{name}.gguf"
        rewrite_metadata(source / entry.file, folder / path, {KEY_NAME: name})
        digest = file_digest(folder / path)
        files.append(FileEntry(path, (folder / path).stat().st_size, digest))
        entries.append(dataclasses.replace(entry, name=name, file=path, digest=digest))
    made = dataclasses.replace(
        manifest, adapters=tuple(entries), stacks=(), default_adapter=None, files=tuple(files), auto=None
    )
    (folder / MANIFEST_FILE).write_bytes(made.dump())
    return made


def workload(options: argparse.Namespace, project: Project, manifest: Manifest, count: int) -> list[Arrival]:
    """The requests, the same for each call."""
    drawn = random.Random(count)
    weights = [1 / rank**options.skew for rank in range(1, count + 1)]
    ranks = list(range(count))
    drawn.shuffle(ranks)  # which adapters are asked for often has nothing to do with their order
    names = [entry.name for entry in manifest.adapters]
    rows = {name: load_rows(project.adapters[name].data.eval) for name in names}  # type: ignore[union-attr]
    found, at = [], 0.0
    for number in range(options.requests):
        at += drawn.expovariate(options.rate)
        adapter = ranks[drawn.choices(range(count), weights)[0]]
        own = rows[names[adapter % len(names)]]
        found.append(Arrival(at, adapter, list(own[number % len(own)].messages)))
    return found


def measured(
    options: argparse.Namespace, folder: Path, manifest: Manifest, arrivals: Sequence[Arrival]
) -> list[list[str]]:
    """A line of the table for each server."""
    files = ",".join(str(folder / entry.file) for entry in manifest.adapters)
    context = 512
    more = ("--lora", files, "--lora-init-without-apply", "-np", str(options.parallel))
    mine = ("--parallel", str(options.parallel), "--context", str(context), "--exact", options.exact)
    placed = argparse.Namespace(**{**vars(options), "bundle": folder})
    with ExitStack() as stack:
        ours = our_service(placed, *mine, "--adapter-memory", str(options.memory), "--queue", str(len(arrivals)))
        stack.enter_context(closing(ours))
        base = folder / manifest.base.file
        theirs = llama_server(options, base, *more, "-c", str(options.parallel * context), port=PORT)
        stack.enter_context(closing(theirs))
        servers = {"edgekit": ours, "llama-server": theirs}
        bodies = {
            "edgekit": [{"model": f"n{each.adapter}", "messages": each.messages} for each in arrivals],
            "llama-server": [told(manifest.adapters[each.adapter], each) for each in arrivals],
        }
        runs: dict[str, list[Run]] = {name: [] for name in servers}
        for turn in range(options.rounds):
            for name in sorted(servers, reverse=bool(turn % 2)):
                runs[name].append(asyncio.run(asked(options, servers[name], bodies[name], arrivals)))
        read = re.search(r"adapter_loads(?:_total)? (\d+)", httpx.get(f"{ours.url}/metrics").text)
        loads = {"edgekit": read[1] if read else "?", "llama-server": str(len(manifest.adapters))}
        return [[name, *figures(runs[name]), loads[name], memory(servers[name])] for name in servers]


def told(entry: AdapterEntry, arrival: Arrival) -> dict[str, Any]:
    """A request as llama-server takes it: the system prompt said, the adapter by its number."""
    system = [{"role": "system", "content": entry.system}] if entry.system else []
    return {"messages": [*system, *arrival.messages], "lora": [{"id": arrival.adapter, "scale": 1.0}]}


async def asked(
    options: argparse.Namespace, server: Service, bodies: Sequence[dict[str, Any]], arrivals: Sequence[Arrival]
) -> Run:
    """Send each request at its moment, and wait for all answers."""
    latencies, tokens = [], 0
    more = {"max_tokens": options.tokens, "temperature": 0}
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=server.url, timeout=None, limits=limits) as client:
        for body in bodies[:WARM_UP]:
            (await client.post("/v1/chat/completions", json=body | more)).raise_for_status()
        began = time.perf_counter()

        async def one(arrival: Arrival, body: dict[str, Any]) -> None:
            nonlocal tokens
            await asyncio.sleep(began + arrival.at - time.perf_counter())
            answer = (await client.post("/v1/chat/completions", json=body | more)).raise_for_status().json()
            latencies.append(time.perf_counter() - began - arrival.at)
            tokens += answer["usage"]["completion_tokens"]

        await asyncio.gather(*itertools.starmap(one, zip(arrivals, bodies, strict=True)))
        return Run(time.perf_counter() - began, latencies, tokens)


def figures(runs: Sequence[Run]) -> list[str]:
    """Answers and tokens a second (median of the rounds), latency of all rounds: median and 95th percentile."""
    latencies = [each for run in runs for each in run.latencies]
    return [
        f"{statistics.median(len(run.latencies) / run.seconds for run in runs):.2f}",
        f"{statistics.median(run.tokens / run.seconds for run in runs):.1f}",
        f"{statistics.median(latencies):.2f}",
        f"{statistics.quantiles(latencies, n=20)[-1]:.2f}",
    ]


def memory(server: Service) -> str:
    """MB of memory that the processes of a server have to themselves (``Private_*`` of Linux)."""
    total = 0
    waiting = [server.process.pid]
    while waiting:
        process = waiting.pop()
        rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
        total += sum(int(value) for value in re.findall(r"^Private_\w+: +(\d+) kB", rollup, re.MULTILINE))
        for task in Path(f"/proc/{process}/task").iterdir():
            waiting += [int(child) for child in (task / "children").read_text().split()]
    return f"{total / 1000:.0f}"


if __name__ == "__main__":
    main()
