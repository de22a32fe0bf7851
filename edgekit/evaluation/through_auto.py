"""What it costs that the device chooses: adapters' evaluation rows, asked by name and as requests for ``auto``."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgekit.data import Row
from edgekit.evaluation.artifact import Artifact
from edgekit.evaluation.evaluate import questions
from edgekit.evaluation.scoring import Score, score_rows
from edgekit.evaluation.table import percent
from edgekit.project import Adapter, Project
from edgekit_runtime.bench.report import aligned
from edgekit_runtime.errors import InputError, NobodyAnswers
from edgekit_runtime.files.atomic import write_whole
from edgekit_runtime.files.strict_json import strict_json
from edgekit_runtime.formats.manifest import AUTO, BASE
from edgekit_runtime.formats.route import user_text

THROUGH_AUTO_SCHEMA = "edgekit.through-auto/1"


@dataclass(frozen=True)
class Chosen:
    """One adapter's rows.

    Attributes:
        adapter: its name.
        elsewhere: rows that the device gives to somebody else, or to nobody.
        by_name: the score of asking the adapter.
        through_auto: the score of asking ``auto``.
    """

    adapter: str
    elsewhere: int
    by_name: Score
    through_auto: Score


@dataclass(frozen=True)
class ThroughAuto:
    """All adapters of a bundle that the project has rows of; ``engine`` and ``runs_on`` as in an evaluation."""

    engine: str
    runs_on: str
    adapters: Sequence[Chosen]

    @property
    def by_name(self) -> float:
        """The mean score over the adapters, each asked by its name."""
        return statistics.fmean(each.by_name.value for each in self.adapters)

    @property
    def through_auto(self) -> float:
        """The same through ``auto``."""
        return statistics.fmean(each.through_auto.value for each in self.adapters)

    @property
    def kept(self) -> float | None:
        """``through_auto`` as a share of ``by_name``; None where nothing is right by name."""
        return self.through_auto / self.by_name if self.by_name > 0 else None

    def as_dict(self) -> dict[str, Any]:
        """The JSON document."""
        means = {"by_name": self.by_name, "through_auto": self.through_auto, "kept": self.kept}
        return {"schema": THROUGH_AUTO_SCHEMA, **asdict(self), **means}

    def save(self, path: Path) -> None:
        """Write the JSON document; raises InputError where it can't be written."""
        write_whole(path, (strict_json(self.as_dict(), indent=2) + "\n").encode())

    def text(self) -> str:
        """As a table."""
        table = [["", "rows", "elsewhere", "by name", "through auto"]]
        for each in self.adapters:
            counts = [str(each.by_name.rows), str(each.elsewhere)]
            table.append([each.adapter, *counts, percent(each.by_name.value), percent(each.through_auto.value)])
        table.append(["mean", "", "", percent(self.by_name), percent(self.through_auto)])
        kept = "nothing is right by name" if self.kept is None else f"auto keeps {percent(self.kept)} % of it"
        head = f"{AUTO}: on {self.engine} at {self.runs_on}, scores in %"
        return "\n".join([head, *aligned(table), kept])


def evaluate_through_auto(project: Project, bundle: Path, *, limit: int | None = None) -> ThroughAuto:
    """Score the adapters of ``bundle`` on their evaluation rows, asked by name and through ``auto``.

    A row that ``auto`` gives to its own adapter is asked once: the two requests are the same.  Where nobody is to
    answer, the answer is empty.

    Args:
        project: has the rows.
        bundle: exported with ``auto``.
        limit: use only the first rows of each adapter.

    Raises:
        InputError: bad rows, a bundle without ``auto``, or one that has no adapter with rows.
    """
    with Artifact(bundle) as opened:
        manifest = opened.runtime.manifest
        if manifest.auto is None:
            raise InputError(f"{bundle} has no {AUTO}", "write auto: {fallback: base} into edgekit.yaml, and export")
        names = [entry.name for entry in manifest.adapters if entry.name in project.adapters]
        if not names:
            raise InputError(f"{bundle} has no adapter of this project", "export it with `edgekit export`")
        adapters = [_chosen(project, project.adapter(name), opened, limit) for name in names]
        return ThroughAuto(manifest.engine, manifest.base.quantization, adapters)


def _chosen(project: Project, adapter: Adapter, opened: Artifact, limit: int | None) -> Chosen:
    _, rows, max_tokens, yardstick = questions(project, adapter, limit)
    by_name = opened.answers(rows, adapter.system, max_tokens, adapter=adapter.name)
    owners = [_owner(opened, row) for row in rows]
    others = [row for row, owner in zip(rows, owners, strict=True) if owner not in (adapter.name, None)]
    given = iter(opened.answers(others, None, max_tokens, adapter=AUTO) if others else [])
    through_auto = [
        own if owner == adapter.name else "" if owner is None else next(given)
        for own, owner in zip(by_name, owners, strict=True)
    ]
    elsewhere = sum(owner != adapter.name for owner in owners)
    return Chosen(
        adapter.name, elsewhere, score_rows(rows, by_name, yardstick), score_rows(rows, through_auto, yardstick)
    )


def _owner(opened: Artifact, row: Row) -> str | None:
    """Who answers a row through ``auto``; None for nobody."""
    try:
        route = opened.runtime.route(user_text(row.messages))
    except NobodyAnswers:
        return None
    return route.adapter or BASE
