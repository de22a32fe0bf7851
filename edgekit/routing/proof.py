"""The proof of a router: who gets evaluation rows, and who gets texts that are for nobody, on the device's own code."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from edgekit.routing.everyday import texts_of
from edgekit.routing.unseen import UNSEEN
from edgekit_runtime.errors import NobodyAnswers
from edgekit_runtime.runtime import Runtime

log = logging.getLogger(__name__)

FALLBACK = "the fallback"  # in a confusion table: no adapter is chosen there, and none can have this name
GOOD_CHOICE, GOOD_FALLBACK = 97.0, 95.0  # %; less is told


def prove_router(runtime: Runtime, texts: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """What a bundle's quality says of ``auto``.

    Args:
        runtime: with the bundle.
        texts: evaluation rows of each adapter.

    Returns:
        ``adapters``: of each its ``rows``, the share that it answers (``right``, %), also as the fallback, and how
        many rows were given to whom (``chosen``); ``right``: the mean over adapters; ``unseen``: ``rows`` of kinds that
        no router is fitted on, the share of them that goes to the ``fallback`` (%), and that of each kind.
    """
    adapters: dict[str, dict[str, Any]] = {}
    fallback_name = (runtime.manifest.auto or {}).get("fallback")
    for name, asked in texts.items():
        chosen = Counter(_choice(runtime, text) for text in asked)
        mine = chosen[name] + (chosen[FALLBACK] if name == fallback_name else 0)
        adapters[name] = {
            "rows": len(asked),
            "right": _percent(mine, len(asked)),
            "chosen": dict(chosen.most_common()),
        }
    kinds, left, rows = {}, 0, 0
    for kind, asked in texts_of(UNSEEN).items():
        found = sum(_choice(runtime, text) == FALLBACK for text in asked)
        kinds[kind] = _percent(found, len(asked))
        left, rows = left + found, rows + len(asked)
    right = round(sum(each["right"] for each in adapters.values()) / len(adapters), 2)
    fallback = _percent(left, rows)
    if right < GOOD_CHOICE or fallback < GOOD_FALLBACK:
        log.warning(
            "auto gives %.1f %% of the adapters' rows to the right one, and %.1f %% of other texts to the fallback:"
            " the report has a table",
            right,
            fallback,
        )
    unseen = {"rows": rows, "fallback": fallback, "kinds": kinds}
    return {"adapters": adapters, "right": right, "unseen": unseen}


def choice_table(proof: Mapping[str, Any]) -> list[list[str]]:
    """The confusion table of a report, headings first: rows of whom, given to whom."""
    names = [*proof["adapters"], FALLBACK]
    table = [["rows of", *names, "right"]]
    for name, found in proof["adapters"].items():
        table.append([name, *(str(found["chosen"].get(each, 0)) for each in names), f"{found['right']:.1f} %"])
    return table


def unseen_table(proof: Mapping[str, Any]) -> list[list[str]]:
    """The share of each kind of other texts that goes to the fallback, the worst first, headings first."""
    kinds = sorted(proof["unseen"]["kinds"].items(), key=lambda each: each[1])
    return [["texts about", "to the fallback"], *([kind, f"{share:.1f} %"] for kind, share in kinds)]


def choice_tables(proof: Mapping[str, Any] | None) -> list[list[list[str]]]:
    """Both tables; none where devices choose no adapters."""
    return [] if proof is None else [choice_table(proof), unseen_table(proof)]


def _choice(runtime: Runtime, text: str) -> str:
    try:
        route = runtime.route(text)
    except NobodyAnswers:
        return FALLBACK
    return FALLBACK if route.fallback or route.adapter is None else route.adapter


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 2) if whole else 0.0
