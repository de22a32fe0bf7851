"""report.html: what a person sees of a proof.  One file without scripts, which asks no network for anything."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.pages import PageFrame, page_frame
from edgekit.pages.signs import visible
from edgekit.proof import plots, words
from edgekit.proof.compare import Proof, RowProof
from edgekit.proof.figures import STEPS, Figure, decisive, parts_table, proof_figures
from edgekit.proof.marks import Marked, Piece, expected, marked, plain
from edgekit.proof.rows import alike_rows, differing_rows
from edgekit.routing.proof import choice_tables

ROWS_SHOWN = 200  # of each adapter: a page of more is too large to open; report.json has all
OPENED = 4  # rows that differ and are not folded
FOLDED = 420  # characters of a text that stand there unfolded
GIST = 120
OVERVIEW = 4  # figures of an adapter in the table of all


@dataclass(frozen=True)
class Answer:
    """One of the three answers to a row; ``state`` is right, partly or wrong by its score."""

    kind: str
    title: str
    score: str
    state: str
    said: Marked


@dataclass(frozen=True)
class Asked:
    """A row: where it stands, its prompt (``gist`` is its beginning), what was expected and what was answered.

    ``differs`` says how the device's answer compares with the trained model's; empty where they are the same.
    """

    where: str
    gist: str
    prompt: Sequence[Piece]
    expected: Marked
    answers: Sequence[Answer]
    differs: str
    kl: str
    opened: bool


@dataclass(frozen=True)
class Section:
    """One adapter's part of the page."""

    anchor: str
    name: str
    passed: bool
    answers: Sequence[tuple[str, str, bool]]
    rows: str
    overview: Sequence[str]
    figures: Sequence[Figure]
    decisive: int
    bars: Sequence[plots.Bar]
    spans: Sequence[plots.Span]
    histogram: plots.Histogram | None
    asked: int
    differing_count: int
    differing: Sequence[Asked]
    alike: Sequence[Asked]
    left_out: int


def page(
    proofs: Sequence[Proof],
    quality: Mapping[str, Any],
    figures: Mapping[str, Mapping[str, Any]],
    origin: Mapping[str, Any],
    remedy: str | None = None,
) -> str:
    """The page's HTML.

    Args:
        proofs: one an adapter.
        quality: what the manifest says of the bundle.
        figures: what it says of each adapter.
        origin: project, base, device, versions and digests.
        remedy: what helps a refused one.
    """
    chosen = origin["base"]["quantization"]
    ladder = quality.get("ladder", [])
    return _frame().render(
        "page.html",
        verdict=words.verdict(quality),
        sentence=words.sentence(quality, origin, figures),
        quality=quality,
        reasons=quality.get("reasons", []),
        accepted=quality.get("accepted"),
        remedy=remedy,
        questions=words.QUESTIONS,
        asked_gain=words.asked_gain(quality),
        allowed_loss=words.points(quality["max_loss_points"]),
        more=words.MORE,
        sections=[_section(n, proof, quality, figures[proof.adapter]) for n, proof in enumerate(proofs, 1)],
        combined={name: parts_table(each) for name, each in origin.get("combined", {}).items()},
        choices=choice_tables(quality.get("auto")),
        of_unseen=words.of_unseen(quality["auto"]) if quality.get("auto") else "",
        ladder=ladder,
        scatter_plot=plots.ladder_scatter(ladder, chosen, quality["max_mean_kl"]),
        score_ticks=plots.score_ticks(),
        origin=origin,
    )  # fmt: skip


def _section(number: int, proof: Proof, quality: Mapping[str, Any], told: Mapping[str, Any]) -> Section:
    answers = dict(words.proof_lines(told))
    shown = proof_figures(proof, quality, told)
    differing, alike = differing_rows(proof), alike_rows(proof)
    kept = differing[:ROWS_SHOWN], alike[: max(0, ROWS_SHOWN - len(differing))]
    free = frozenset(proof.free_text)
    return Section(
        anchor=f"adapter-{number}",
        name=proof.adapter,
        passed=all(told[question] for question in words.QUESTIONS),
        answers=[(each, answers[each].partition(": ")[2], told[each]) for each in words.QUESTIONS],
        rows=answers["rows"],
        overview=[each.value for each in shown[:OVERVIEW]],
        figures=shown,
        decisive=decisive(shown),
        bars=plots.score_bars(proof),
        spans=plots.spans(proof, quality),
        histogram=plots.kl_histogram(proof, quality["max_mean_kl"]),
        asked=len(proof.rows),
        differing_count=len(differing),
        differing=[_asked(row, free, opened=n < OPENED) for n, row in enumerate(kept[0])],
        alike=[_asked(row, free, opened=not differing and n == 0) for n, row in enumerate(kept[1])],
        left_out=len(proof.rows) - len(kept[0]) - len(kept[1]),
    )


def _asked(row: RowProof, free: frozenset[tuple[str, ...]], *, opened: bool) -> Asked:
    said = (
        ("base", "Base", row.base, row.base_score),
        ("torch", "Trained (torch)", row.torch, row.torch_score),
        ("device", "Device", row.device, row.device_score),
    )
    gist = visible(" ".join(row.prompt.split()))
    return Asked(
        where=visible(row.where),
        gist=gist if len(gist) <= GIST else f"{gist[:GIST]}…",
        prompt=plain(row.prompt) if row.prompt else (),
        expected=expected(row.reference),
        answers=[
            Answer(kind, title, _score(score), _state(score), marked(row.reference, text, free))
            for kind, title, text, score in said
        ],
        differs=_difference(row),
        kl="" if row.kl is None else words.figure(row.kl, ".4f"),
        opened=opened,
    )


def _score(score: float) -> str:
    """Of 100, in whole points; none and all of them are said of exactly those."""
    said = words.figure(100 * score, ".0f")
    return "under 1" if said == "0" and score > 0 else "over 99" if said == "100" and score < 1 else said


def _state(score: float) -> str:
    return "right" if score == 1 else "partly" if score > 0 else "wrong"


def _difference(row: RowProof) -> str:
    if row.device == row.torch:
        return ""
    lost = 100 * (row.torch_score - row.device_score)
    if round(lost, 1) == 0:
        return "same score"
    return f"{abs(lost):.0f} points {'less' if lost > 0 else 'more'}"


@functools.cache
def _frame() -> PageFrame:
    made = page_frame("edgekit.proof")
    made.templates.filters |= {"figure": words.figure, "folded": _folded}
    made.templates.globals |= {"STEPS": STEPS, "OVERVIEW": OVERVIEW}
    return made


def _folded(pieces: Sequence[Piece]) -> tuple[list[Piece], list[Piece], int]:
    """The first ``FOLDED`` characters, the rest and its length; a little more is not worth a fold."""
    length = sum(len(piece.text) for piece in pieces)
    if length <= FOLDED * 1.25:
        return list(pieces), [], 0
    first, room = list[Piece](), FOLDED
    for n, piece in enumerate(pieces):
        if len(piece.text) > room:
            cut = Piece(piece.kind, piece.text[:room]), Piece(piece.kind, piece.text[room:])
            return [*first, cut[0]], [cut[1], *pieces[n + 1 :]], length - FOLDED
        first.append(piece)
        room -= len(piece.text)
    return first, [], 0
