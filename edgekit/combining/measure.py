"""What a combination makes of its parts' tasks: the rows of each part, asked of the part alone and of the combination.

Both answer in torch on the same weights, with the part's own system prompt.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.bases.weights import Weights
from edgekit.encoding.images import row_images
from edgekit.evaluation.evaluate import Questions, questions
from edgekit.evaluation.scoring import Score, bootstrap_interval, points_between, score_rows
from edgekit.evaluation.torch_model import TorchModel
from edgekit.project import Project
from edgekit.training.parts import FoundPart
from edgekit_exporters.base import Base


@dataclass(frozen=True)
class PartScore:
    """One part's task before and after.

    Attributes:
        part: its name.
        rows: how many.
        metric: what the task is scored by.
        before: score of the part alone, 0-100.
        after: of the combination.
        loss: before - after, points.
        loss_interval: its 95 % interval, paired bootstrap over rows.
    """

    part: str
    rows: int
    metric: str
    before: float
    after: float
    loss: float
    loss_interval: tuple[float, float]

    @classmethod
    def of(cls, part: str, before: Score, after: Score) -> PartScore:
        """Compare two scores of the same rows."""
        losses = points_between(before, after)
        return cls(
            part=part,
            rows=before.rows,
            metric=before.metric,
            before=100 * before.value,
            after=100 * after.value,
            loss=statistics.fmean(losses),
            loss_interval=bootstrap_interval(losses),
        )

    def as_dict(self) -> dict[str, Any]:
        """For run.json, where the name stands already."""
        return {key: value for key, value in vars(self).items() if key != "part"}


class Measure:
    """Rows of all parts that have some, and the answers of each part alone, which are asked once."""

    def __init__(
        self,
        project: Project,
        parts: Sequence[FoundPart],
        base: Base,
        weights: Weights,
        limit: int | None,
        *,
        choose: Callable[[Questions], Questions] = lambda asked: asked,
    ) -> None:
        """Ask the parts.  ``choose`` leaves some of the rows out."""
        self._parts = [part for part in parts if part.has_rows]
        self._model = TorchModel(base, weights, None, row_images(project, base))
        self._asked = {part.name: choose(questions(project, part.adapter, limit)) for part in self._parts}
        self._alone = {part.name: self._score(part, part.folder, part.name) for part in self._parts}

    def scores(self, folder: Path, name: str) -> list[PartScore]:
        """Those of the combination ``name`` in ``folder``.

        Raises:
            InputError: it computes what are no numbers.
        """
        return [
            PartScore.of(part.name, self._alone[part.name], self._score(part, folder, name)) for part in self._parts
        ]

    def _score(self, part: FoundPart, folder: Path, name: str) -> Score:
        asked = self._asked[part.name]
        self._model.carry(folder, name=name, reasoning=part.reasoning)
        answers = self._model.answers(asked.rows, part.adapter.system, asked.max_tokens, with_adapter=True)
        return score_rows(asked.rows, answers, asked.yardstick)
