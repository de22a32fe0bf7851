"""Time to the first token of a chat's later turns, beside llama.cpp's own server.

    python benchmarks/chats.py BUNDLE --llama-server PATH [--chats 1 3] [--parallel 1] [--exact on] [--repeats 5]

Both get the same conversations in turn: a chat of five turns alone, then several chats whose turns alternate on one KV
sequence.  Each server gets its own answers back, as clients send them.  llama-server has its defaults, one slot.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

from edgekit_runtime import BASE
from edgekit_runtime.formats.bundle import open_bundle
from service import Service, llama_server, our_service

TURNS = 5
ANSWER = 24  # tokens
QUESTION = (
    "Part {chat}-{number}, turn {turn}: the left edge has a scratch of 0.{turn} mm, the lid is dented near the hinge,"
    " and the paint has run on the lower side. Say in one line what to do with it, and why, before the next part comes."
)


def main() -> None:
    """Ask both, and print one line a figure, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--llama-server", type=Path, required=True, help="of the same source as the engine")
    parser.add_argument("--chats", type=int, nargs="+", default=[1, 3], help="chats whose turns alternate")
    parser.add_argument("--parallel", type=int, default=1, help="of ours")
    parser.add_argument("--exact", choices=("on", "off"), default="on", help="of ours")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results: dict[str, Any] = {}
    for chats in options.chats:
        turns = results[f"{chats} chats"] = compare(options, chats)
        for turn, (ratio, ours, theirs) in enumerate([] if options.json else turns, 1):
            figures = f"theirs / ours {ratio:5.2f}   ours {ours:6.0f} ms   theirs {theirs:6.0f} ms"
            print(f"{chats} chats, turn {turn}: {figures}", flush=True)
    if options.json:
        print(json.dumps(results, indent=1))


def compare(options: argparse.Namespace, chats: int) -> list[tuple[float, float, float]]:
    """For each turn: the median of theirs / ours over pairs, and the medians of both in milliseconds."""
    with open_bundle(options.bundle) as bundle:
        theirs = llama_server(options, bundle.base_path, "-np", "1", "-c", "2048")
    ours = our_service(options, "--parallel", str(options.parallel), "--context", "2048", "--exact", options.exact)
    pairs: list[list[tuple[float, float]]] = [[] for _ in range(TURNS)]
    try:
        for number in range(options.repeats + 1):
            order = (ours, theirs) if number % 2 else (theirs, ours)
            found = {each.url: talk(each, chats, number) for each in order}
            if number:  # the first pair warms up
                for turn in range(TURNS):
                    pairs[turn] += zip(found[ours.url][turn], found[theirs.url][turn], strict=True)
    finally:
        ours.close()
        theirs.close()
    return [
        (
            statistics.median(other / own for own, other in each),
            1e3 * statistics.median(own for own, _ in each),
            1e3 * statistics.median(other for _, other in each),
        )
        for each in pairs
    ]


def talk(service: Service, chats: int, number: int) -> list[list[float]]:
    """Seconds to the first token, for each turn those of all chats."""
    histories: list[list[dict[str, str]]] = [[] for _ in range(chats)]
    waits: list[list[float]] = []
    for turn in range(TURNS):
        waits.append([])
        for chat, history in enumerate(histories):
            history.append({"role": "user", "content": QUESTION.format(chat=chat, number=number, turn=turn)})
            start = time.perf_counter()
            times, _, said = service.answer(model=BASE, messages=history, max_tokens=ANSWER)
            waits[-1].append(times[0] - start)
            history.append({"role": "assistant", "content": said})
    return waits


if __name__ == "__main__":
    main()
