"""What forced tokens and look-ahead do to decode: the same requests with and without, in turns.

For each adapter: its evaluation rows, with and without its schema; then the bare base on open questions, where
nothing is repeated.  Ratios of decode tokens/s, medians over the rows; how many tokens a step gave; whether the greedy
answers are the same.

With ``--llama-server``, the same rows go to llama.cpp's own server too, plain and with its speculation from n-grams,
one at a time and four at once.

    python benchmarks/decode.py dist/line-3 --project . --rows 24 --llama-server PATH
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from decode_servers import beside
from edgekit.data import load_rows
from edgekit.project import load_project
from edgekit_runtime import Generation, Runtime
from edgekit_runtime.bench.report import aligned

OPEN = (
    "Tell me about the sea.",
    "Why is the sky blue?",
    "Write a short story about a clock.",
    "How do bees find flowers?",
    "Explain what a lathe does.",
    "What should I cook tonight?",
    "Describe a street in the rain.",
    "Who invented the telephone?",
)
TOKENS = 96


def main() -> None:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--project", type=Path, default=Path())
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--llama-server", type=Path, help="of the same source as the engine")
    options = parser.parse_args()
    project = load_project(options.project)
    table = [["requests", "plain tok/s", "forced", "look-ahead", "tokens a step", "accepted", "same answers"]]
    for name, spec in project.adapters.items():
        rows = load_rows(spec.data.eval)[: options.rows]
        asked = [{"messages": row.messages, "adapter": name, "max_tokens": TOKENS} for row in rows]
        table.append([name, *_measured(options, asked)])
        if spec.schema is not None:
            held = [each | {"schema": spec.schema} for each in asked]
            table.append([f"{name}, schema", *_measured(options, held)])
    asked = [{"prompt": prompt, "adapter": "base", "max_tokens": TOKENS} for prompt in OPEN]
    table.append(["base, open questions", *_measured(options, asked)])
    print("\n".join(aligned(table)), flush=True)
    if options.llama_server:
        print("\n".join(aligned(beside(options, project, TOKENS))))


def _measured(options: argparse.Namespace, asked: Sequence[dict[str, Any]]) -> list[str]:
    """A row of the table: each way begins without any answer given."""
    with ExitStack() as stack:

        def opened(**more: Any) -> Runtime:
            common = {"threads": options.threads, "context": options.context}
            return stack.enter_context(Runtime(options.bundle, **common, **more))

        # With room for two requests nothing is guessed, and what is forced comes at once.
        ways = {"plain": opened(lookahead=False), "forced": opened(parallel=2), "ahead": opened()}
        given: dict[str, list[Generation]] = {way: [] for way in ways}
        for each in asked:
            for way, runtime in ways.items():
                given[way].append(runtime.generate(**each))
    speeds = {way: [each.timings.decode_tps for each in answers] for way, answers in given.items()}
    pairs = {way: [new / old for new, old in zip(speeds[way], speeds["plain"], strict=True)] for way in speeds}
    ahead = [each.timings for each in given["ahead"]]
    drafted, accepted = (sum(getattr(each, key) for each in ahead) for key in ("drafted_tokens", "accepted_tokens"))
    tokens = sum(each.usage.completion_tokens for each in given["ahead"])
    forced = sum(each.forced_tokens for each in ahead)
    same = sum(new.text == old.text for new, old in zip(given["ahead"], given["plain"], strict=True))
    return [
        f"{statistics.median(speeds['plain']):.1f}",
        f"{statistics.median(pairs['forced']):.2f}",
        f"{statistics.median(pairs['ahead']):.2f}",
        f"{tokens / max(tokens - accepted - forced, 1):.2f}",
        f"{accepted / max(drafted, 1):.0%}",
        f"{same} of {len(asked)}",
    ]


if __name__ == "__main__":
    main()
