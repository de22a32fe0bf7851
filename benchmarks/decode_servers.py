"""Decode through HTTP beside llama.cpp's own server, plain and with its speculation; a part of decode.py."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

from edgekit.data import load_rows
from edgekit.project import Project
from edgekit_runtime.formats.bundle import Bundle, open_bundle
from edgekit_runtime.formats.manifest import AdapterEntry
from service import Service, llama_server, our_service

AT_ONCE = 4
SPECULATION = ("--spec-type", "ngram-mod")  # n-grams of the conversation and of earlier ones, as ours
FIRST_PORT = 8093


@dataclass(frozen=True)
class Question:
    """A row, as each kind of server is asked for it."""

    ours: dict[str, Any]
    theirs: dict[str, Any]


@dataclass(frozen=True)
class Server:
    """A service, and whether it is ours."""

    service: Service
    own: bool

    def ask(self, question: Question) -> tuple[int, float]:
        """Tokens of the answer after the first one, and seconds since that."""
        times, counts = self.service.stream(**(question.ours if self.own else question.theirs))
        return counts["completion_tokens"] - 1, times[-1] - times[0]


def beside(options: argparse.Namespace, project: Project, tokens: int) -> list[list[str]]:
    """The table: decode tokens/s of ours and ours / theirs, one row at a time, then several at once; medians."""
    heads = ["tok/s", "/ llama-server", "/ with speculation"]
    table = [["requests", *heads, *(f"{AT_ONCE} at once: {head}" for head in heads)]]
    with open_bundle(options.bundle) as bundle, ExitStack() as stack:
        alone, together = _servers(options, bundle, 1, stack), _servers(options, bundle, AT_ONCE, stack)
        for entry in bundle.manifest.adapters:
            asked = _questions(options, project, bundle, entry, tokens)
            single = [[tokens / seconds for tokens, seconds in (each.ask(one) for each in alone)] for one in asked]
            groups = [asked[at : at + AT_ONCE] for at in range(0, len(asked) - AT_ONCE + 1, AT_ONCE)]
            several = [[_throughput(server, group) for server in together] for group in groups]
            table.append([entry.name, *_ratios(single), *_ratios(several)])
    return table


def _servers(options: argparse.Namespace, bundle: Bundle, at_once: int, stack: ExitStack) -> list[Server]:
    """Ours, theirs, theirs with speculation."""
    files = ",".join(str(bundle.root / entry.file) for entry in bundle.manifest.adapters)
    more = ("--lora", files, "--lora-init-without-apply", "-np", str(at_once), "-c", str(at_once * options.context))
    own = our_service(options, "--parallel", str(at_once), "--context", str(options.context))
    found = [Server(stack.enter_context(closing(own)), own=True)]
    for number, speculation in enumerate(((), SPECULATION)):
        port = FIRST_PORT + 2 * at_once + number
        service = llama_server(options, bundle.base_path, *more, *speculation, port=port)
        found.append(Server(stack.enter_context(closing(service)), own=False))
    return found


def _questions(
    options: argparse.Namespace, project: Project, bundle: Bundle, entry: AdapterEntry, tokens: int
) -> list[Question]:
    """An adapter's evaluation rows, held to its schema where it has one."""
    spec = project.adapters[entry.name]
    common: dict[str, Any] = {"max_tokens": tokens}
    if spec.schema is not None:
        form = {"name": entry.name, "schema": spec.schema}
        common["response_format"] = {"type": "json_schema", "json_schema": form}
    system = [{"role": "system", "content": entry.system}] if entry.system else []
    scales = [float(each.name == entry.name) for each in bundle.manifest.adapters]
    lora = [{"id": number, "scale": scale} for number, scale in enumerate(scales)]
    rows = load_rows(spec.data.eval)[: options.rows] if spec.data is not None else []
    return [
        Question(
            ours=common | {"model": entry.name, "messages": list(row.messages)},
            theirs=common | {"lora": lora, "messages": [*system, *row.messages]},
        )
        for row in rows
    ]


def _throughput(server: Server, questions: Sequence[Question]) -> float:
    """Tokens/s of several answers at once, prompts read as well."""
    began = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as clients:
        tokens = sum(each for each, _ in clients.map(server.ask, questions))
    return tokens / (time.perf_counter() - began)


def _ratios(rows: Sequence[Sequence[float]]) -> list[str]:
    """Ours, and ours / each of theirs, from [ours, theirs, theirs with speculation] a row."""
    pairs = [[row[0] / row[at] for row in rows] for at in (1, 2)]
    return [f"{statistics.median(row[0] for row in rows):.1f}", *(f"{statistics.median(pair):.2f}" for pair in pairs)]
