"""Many adapters on one device: requests for 20 to 1,000 of them, beside llama.cpp's own server.

    python benchmarks/many.py PROJECT BUNDLE --llama-server PATH [--adapters 20 100] [--rate 1.0] [--small 4]

The workload of EdgeLoRA (https://arxiv.org/abs/2507.01438): adapters are asked for by Zipf's law, requests arrive as a
Poisson process.  Both servers get the same requests at the same moments, in turns.  Ours holds as many adapters as
``--memory`` allows and reads others when they are asked for; llama-server reads all of them when it starts.

Adapters are copies of the bundle's, each with a digest of its own; requests are their evaluation rows.  With ``--small
RANK`` only their query and value matrices are left, of a lower rank.

Each answer has exactly ``--tokens`` tokens, so both servers do the same work.  With ``--system WORDS`` each adapter has
a system prompt of its own of so many words, instead of the bundle's.

Throughput is that of requests that all come at once when ``--rate`` is beyond what the servers can do.  CPU time is
that of a server's processes alone, for each answer.
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

import gguf
import httpx
import numpy as np
import psutil

from edgekit.data import load_rows
from edgekit.project import Project, load_project
from edgekit_exporters.gguf.metadata import rewrite_metadata
from edgekit_runtime.bench.report import aligned
from edgekit_runtime.formats.adapter import KEY_NAME, KEY_RANK, KEY_SYSTEM, KEY_TARGETS, SUFFIX_A, AdapterFacts
from edgekit_runtime.formats.bundle import file_digest, open_bundle
from edgekit_runtime.formats.gguf import read_gguf
from edgekit_runtime.formats.manifest import MANIFEST_FILE, AdapterEntry, FileEntry, Manifest
from edgekit_runtime.server.wire import BEAT_SECONDS
from service import Service, llama_server, our_service

WARM_UP = 4  # requests before the clock starts
PORT = 8141
WORDS = ("inspect", "the", "part", "and", "report", "kind", "place", "size", "verdict", "in", "one", "line")


@dataclass(frozen=True)
class Arrival:
    """A request: seconds after the start, its adapter's number, and what it asks."""

    at: float
    adapter: int
    messages: list[dict[str, Any]]


@dataclass(frozen=True)
class Run:
    """What a server made of the requests: seconds until the last answer, each one's latency, tokens of all answers,
    seconds of CPU, adapters that were read.
    """

    seconds: float
    latencies: list[float]
    tokens: int
    cpu: float = 0.0
    loads: int = 0


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
    parser.add_argument("--tokens", type=int, default=32, help="of an answer")
    parser.add_argument("--system", type=int, metavar="WORDS", help="of each adapter's system prompt")
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--memory", type=int, default=128, help="MB for adapters, of ours")
    parser.add_argument("--small", type=int, metavar="RANK", help="of adapters of query and value matrices alone")
    parser.add_argument("--prefix-memory", type=int, default=64, help="MB for system prompts, of ours")
    parser.add_argument("--warm", action="store_true", help="each adapter of the requests has been asked once before")
    parser.add_argument("--rounds", type=int, default=2, help="that each server gets, in turns")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--exact", choices=("on", "off"), default="on", help="of ours")
    options = parser.parse_args()
    project = load_project(options.project)
    heads = ["answers/s", "tokens/s", "median s", "p95 s", "CPU s/answer", "hit rate", "memory MB", "start s"]
    table = [["adapters", "server", *heads]]
    for count in options.adapters:
        with tempfile.TemporaryDirectory() as folder, open_bundle(options.bundle) as bundle:
            manifest = copied(bundle.root, bundle.manifest, count, Path(folder), options)
            arrivals = workload(options, project, bundle.manifest, count)
            for line in measured(options, Path(folder), manifest, arrivals):
                table.append([str(count), *line])
                print("\n".join(aligned(table)), flush=True)


def copied(source: Path, manifest: Manifest, count: int, folder: Path, options: argparse.Namespace) -> Manifest:
    """A bundle of the same base whose adapters are ``count`` copies of the source's, by turns."""
    originals = list(manifest.adapters)
    entries: list[AdapterEntry] = []
    files = [file for file in manifest.files if file.path.startswith("base/")]
    for file in files:
        (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / file.path, folder / file.path)
    (folder / "adapters").mkdir()
    paths = {entry.name: source / entry.file for entry in originals}
    if options.small is not None:
        (folder / "small").mkdir()
        paths = {name: smaller(path, folder / "small" / path.name, options.small) for name, path in paths.items()}
    for number, entry in zip(range(count), itertools.cycle(originals), strict=False):
        name = f"n{number}"
        path = f"adapters/{name}.gguf"
        system = entry.system if options.system is None else system_prompt(number, options.system)
        rewrite_metadata(paths[entry.name], folder / path, {KEY_NAME: name, KEY_SYSTEM: system or ""})
        digest = file_digest(folder / path)
        files.append(FileEntry(path, (folder / path).stat().st_size, digest))
        facts = AdapterFacts.read(folder / path)
        more = {"rank": facts.rank, "targets": facts.targets, "system": system}
        entries.append(dataclasses.replace(entry, name=name, file=path, digest=digest, **more))
    shutil.rmtree(folder / "small", ignore_errors=True)
    made = dataclasses.replace(
        manifest, adapters=tuple(entries), stacks=(), default_adapter=None, files=tuple(files), auto=None
    )
    (folder / MANIFEST_FILE).write_bytes(made.dump())
    return made


def system_prompt(number: int, words: int) -> str:
    """The instructions of an adapter, which no other one has."""
    return f"Station {number}: " + " ".join(WORDS[(number + each) % len(WORDS)] for each in range(words))


def smaller(source: Path, target: Path, rank: int) -> Path:
    """The query and value matrices of an adapter, the first ``rank`` of their ranks; ``target``."""
    whole = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, read_gguf(source).metadata["general.architecture"])
    for key, field in whole.fields.items():
        if not key.startswith("GGUF.") and key not in ("general.architecture", KEY_RANK, KEY_TARGETS):
            writer.add_key_value(key, field.contents(), *field.types)
    for tensor in whole.tensors:
        if ".attn_q." in tensor.name or ".attn_v." in tensor.name:
            data = tensor.data[:rank] if tensor.name.endswith(SUFFIX_A) else tensor.data[:, :rank]
            writer.add_tensor(tensor.name, np.ascontiguousarray(data))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


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
        began = time.perf_counter()
        ours = our_service(
            placed,
            *mine,
            "--adapter-memory",
            str(options.memory),
            "--prefix-memory",
            str(options.prefix_memory),
            "--queue",
            str(len(arrivals)),
        )
        stack.enter_context(closing(ours))
        base = folder / manifest.base.file
        between = time.perf_counter()
        theirs = llama_server(options, base, *more, "-c", str(options.parallel * context), port=PORT)
        stack.enter_context(closing(theirs))
        starts = {"edgekit": between - began, "llama-server": time.perf_counter() - between}
        servers = {"edgekit": ours, "llama-server": theirs}
        bodies = {
            "edgekit": [{"model": f"n{each.adapter}", "messages": each.messages} for each in arrivals],
            "llama-server": [told(manifest.adapters[each.adapter], each) for each in arrivals],
        }
        runs: dict[str, list[Run]] = {name: [] for name in servers}
        for turn in range(options.rounds):
            for name in sorted(servers, reverse=bool(turn % 2)):
                runs[name].append(asyncio.run(asked(options, servers[name], bodies[name], arrivals)))
        return [[name, *figures(runs[name]), memory(servers[name]), f"{starts[name]:.0f}"] for name in servers]


def told(entry: AdapterEntry, arrival: Arrival) -> dict[str, Any]:
    """A request as llama-server takes it: the system prompt said, the adapter by its number."""
    system = [{"role": "system", "content": entry.system}] if entry.system else []
    return {"messages": [*system, *arrival.messages], "lora": [{"id": arrival.adapter, "scale": 1.0}]}


async def asked(
    options: argparse.Namespace, server: Service, bodies: Sequence[dict[str, Any]], arrivals: Sequence[Arrival]
) -> Run:
    """Send each request at its moment, and wait for all answers."""
    latencies, tokens = [], 0
    more = {"max_tokens": options.tokens, "temperature": 0, "ignore_eos": True}
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=server.url, timeout=None, limits=limits) as client:
        told = {
            body["model"] if "model" in body else body["lora"][0]["id"]: body for body in reversed(bodies)
        }  # one of each adapter
        for body in reversed(told.values()) if options.warm else ():
            (await client.post("/v1/chat/completions", json=body | {"max_tokens": 1})).raise_for_status()
        for body in bodies[:WARM_UP]:
            (await client.post("/v1/chat/completions", json=body | more)).raise_for_status()
        cpu, loads = cpu_seconds(server), await adapters_read(client)
        began = time.perf_counter()

        async def one(arrival: Arrival, body: dict[str, Any]) -> None:
            nonlocal tokens
            await asyncio.sleep(began + arrival.at - time.perf_counter())
            answer = (await client.post("/v1/chat/completions", json=body | more)).raise_for_status().json()
            latencies.append(time.perf_counter() - began - arrival.at)
            tokens += answer["usage"]["completion_tokens"]

        await asyncio.gather(*itertools.starmap(one, zip(arrivals, bodies, strict=True)))
        seconds = time.perf_counter() - began
        await asyncio.sleep(2 * BEAT_SECONDS)  # the worker tells its figures so often
        return Run(seconds, latencies, tokens, cpu_seconds(server) - cpu, await adapters_read(client) - loads)


def figures(runs: Sequence[Run]) -> list[str]:
    """Answers and tokens a second (median of the rounds), latency of all rounds: median and 95th percentile."""
    latencies = [each for run in runs for each in run.latencies]
    return [
        f"{statistics.median(len(run.latencies) / run.seconds for run in runs):.2f}",
        f"{statistics.median(run.tokens / run.seconds for run in runs):.1f}",
        f"{statistics.median(latencies):.2f}",
        f"{statistics.quantiles(latencies, n=20)[-1]:.2f}",
        f"{statistics.median(run.cpu / len(run.latencies) for run in runs):.3f}",
        f"{1 - statistics.mean(run.loads / len(run.latencies) for run in runs):.2f}",
    ]


async def adapters_read(client: httpx.AsyncClient) -> int:
    """How many adapters our server has read since it began; 0 of the other, which has read all."""
    read = re.search(r"adapter_loads(?:_total)? (\d+)", (await client.get("/metrics")).text)
    return int(read[1]) if read else 0


def cpu_seconds(server: Service) -> float:
    """Seconds of CPU that the processes of a server have had."""
    return sum(sum(process.cpu_times()[:2]) for process in processes(server))


def memory(server: Service) -> str:
    """MB of memory that the processes of a server have to themselves (``Private_*`` of Linux)."""
    total = 0
    for process in processes(server):
        rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        total += sum(int(value) for value in re.findall(r"^Private_\w+: +(\d+) kB", rollup, re.MULTILINE))
    return f"{total / 1000:.0f}"


def processes(server: Service) -> list[psutil.Process]:
    """A server's, its children included."""
    first = psutil.Process(server.process.pid)
    return [first, *first.children(recursive=True)]


if __name__ == "__main__":
    main()
