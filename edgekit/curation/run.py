"""What `generate` and `label` share: a budget that is kept, progress, and an end that says where it stands."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from edgekit.curation.asking import Budget, ask_all
from edgekit.curation.row_file import REASON, RowFile
from edgekit.curation.teacher import Reply, Teacher, TeacherOptions
from edgekit_exporters.progress import stage
from edgekit_runtime.errors import TargetError

Job = TypeVar("Job")

PATIENCE = 20  # refusals in a row after which nothing more is to be hoped for


@dataclass(frozen=True)
class Written:
    """What a run has left.

    Attributes:
        file: the rows.
        rows: in it.
        new: of this run.
        refused: reason -> how often, in this run.
        tokens: that all runs on this file have cost.
        stopped: why it ended: ``rows``, ``tokens``, ``time``, ``done`` or ``refused``.
    """

    file: Path
    rows: int
    new: int
    refused: dict[str, int]
    tokens: int
    stopped: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**vars(self), "file": str(self.file)}


class Run:
    """One run on a file of rows."""

    def __init__(self, file: RowFile, budget: Budget) -> None:
        """Go on from what the file holds."""
        self.file, self.budget = file, budget
        self._before, self._refused_before = len(file.rows), len(file.refused)
        self._in_a_row = 0
        self._under_way = 0
        self.stopped = "done"

    def may_ask(self) -> bool:
        """Whether there is budget for one more question, those under way counted as rows."""
        if self._in_a_row >= PATIENCE:
            self.stopped = "refused"
            return False
        spent = self.budget.spent(len(self.file.rows), self.file.tokens)
        if spent is not None:
            self.stopped = spent
            return False
        rows = self.budget.rows
        return rows is None or len(self.file.rows) + self._under_way < rows

    def count(self, reply: Reply) -> None:
        """Look whether the tokens of a reply can be counted.

        Raises:
            TargetError: they are bounded, and the endpoint says nothing of them.
        """
        if self.budget.tokens is not None and reply.text is not None and reply.tokens is None:
            raise TargetError("the teacher doesn't say how many tokens it used", "bound --rows or --minutes instead")

    def take(self, row: dict[str, Any]) -> None:
        """Keep a row."""
        self.file.add(row)
        self._in_a_row = 0

    def refuse(self, row: dict[str, Any], reason: str) -> None:
        """Put a row aside."""
        self.file.refuse(row, reason)
        self._in_a_row += 1

    def ask(
        self,
        options: TeacherOptions,
        next_job: Callable[[], Job | None],
        do: Callable[[Job, Teacher], Awaitable[None]],
        concurrency: int,
        total: int | None,
    ) -> Written:
        """Do all jobs that the budget allows.

        Args:
            options: the teacher.
            next_job: the next one, None where there is none for now.
            do: does one.
            concurrency: how many at a time.
            total: rows that there will be, for the progress.

        Raises:
            TargetError: the teacher refuses, or can't be reached.
            KeyboardInterrupt: Ctrl-C; says what there is.
        """

        async def work() -> None:
            async def counted(job: Job) -> None:
                try:
                    await do(job, teacher)
                finally:
                    self._under_way -= 1
                    shown.reach(len(self.file.rows))
                    shown.show(refused=str(len(self.file.refused) - self._refused_before))

            async with Teacher(options) as teacher:
                await ask_all(give, counted, concurrency)

        def give() -> Job | None:
            job = next_job() if self.may_ask() else None
            self._under_way += job is not None
            return job

        try:
            with stage(f"asking {options.model}", total, done=self._before) as shown:
                asyncio.run(work())
        except KeyboardInterrupt:
            rows = len(self.file.rows)
            raise KeyboardInterrupt(f"{self.file.path} has {rows} rows; the same command goes on") from None
        return self.written()

    def written(self) -> Written:
        """What there is now."""
        reasons = Counter(each[REASON].partition(":")[0] for each in self.file.refused[self._refused_before :])
        rows = len(self.file.rows)
        return Written(
            self.file.path, rows, rows - self._before, dict(reasons.most_common()), self.file.tokens, self.stopped
        )
