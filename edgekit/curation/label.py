"""`edgekit data label`: answers of a teacher to prompts that have none."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.curation.answers import schema_judge, unfenced
from edgekit.curation.asking import Budget
from edgekit.curation.provenance import provenance
from edgekit.curation.row_file import RowFile, open_rows
from edgekit.curation.run import Run, Written
from edgekit.curation.samples import sample
from edgekit.curation.teacher import Reply, Teacher, TeacherOptions
from edgekit.data import Row
from edgekit.data.columns import PROVENANCE
from edgekit.data.json_file import parse_json
from edgekit_runtime.errors import InputError
from edgekit_runtime.prompts.chat import Message, apply_system, text_of

TRIES = 3  # of a prompt whose answers are refused


@dataclass(frozen=True)
class Request:
    """What to label.

    Attributes:
        prompts: rows without answers.
        about: what the teacher is told besides the system prompt.
        system: system prompt that the adapter is trained with, for prompts that have none.
        schema: JSON schema of answers.
    """

    prompts: Sequence[Row]
    about: str | None = None
    system: str | None = None
    schema: Mapping[str, Any] | None = None


def label(request: Request, teacher: TeacherOptions, output: Path, budget: Budget, *, concurrency: int) -> Written:
    """Let a teacher answer each prompt once; a second run on the same file asks only what has no answer yet.

    Args:
        request: what to label.
        teacher: who answers.
        output: a JSONL file, to which each row is appended when its answer comes.
        budget: when to end.
        concurrency: questions at a time.

    Raises:
        InputError: prompts with images, a schema that is none, or a file that can't be gone on with.
        TargetError: the teacher refuses, or can't be reached; the rows that have come are in the file.
    """
    pictured = next((row for row in request.prompts if row.images), None)
    if pictured is not None:
        raise InputError(f"{pictured.where}: teachers are asked in text, and this prompt has an image", "leave it out")
    with open_rows(output) as file:
        labeller = _Labeller(request, teacher, Run(file, budget), file)
        return labeller.run.ask(teacher, labeller.next_job, labeller.answer, concurrency, labeller.total)


@dataclass(frozen=True)
class _Job:
    row: Row
    key: str
    tries: int = 0


class _Labeller:
    def __init__(self, request: Request, options: TeacherOptions, run: Run, file: RowFile) -> None:
        self.run = run
        self._request, self._options = request, options
        self._judge = schema_judge(request.schema)
        answered = {each[PROVENANCE].get("question") for each in file.rows}
        by_key = {_key(row): row for row in reversed(request.prompts)}  # of equal ones the first
        self._waiting = deque(_Job(row, key) for key, row in reversed(by_key.items()) if key not in answered)
        self.total = len(file.rows) + len(self._waiting)

    def next_job(self) -> _Job | None:
        return self._waiting.popleft() if self._waiting else None

    async def answer(self, job: _Job, teacher: Teacher) -> None:
        """Ask for an answer, and keep or refuse it."""
        asked = self._question(job.row)
        reply = await teacher.ask(asked, self._request.schema)
        where = {"question": job.key, "prompts": job.row.where}
        origin = provenance("label", self._options, asked, reply, **where)
        answer, problem = self._answer(reply)
        row = {**_as_document(job.row, answer or reply.text), PROVENANCE: origin}
        if problem is None:
            self.run.take(row)
        else:
            self.run.refuse(row, problem)
            if job.tries + 1 < TRIES:
                self._waiting.append(_Job(job.row, job.key, job.tries + 1))
        self.run.count(reply)

    def _answer(self, reply: Reply) -> tuple[str | None, str | None]:
        if reply.text is None or self._request.schema is None:
            return reply.text, reply.problem
        try:
            value = parse_json(unfenced(reply.text))
        except ValueError as error:
            return None, f"no JSON: {error}"
        answer = json.dumps(value, ensure_ascii=False)
        wrong = self._judge(answer)
        return answer, None if wrong is None else f"breaks the schema: {wrong}"

    def _question(self, row: Row) -> list[Message]:
        messages = apply_system(list(row.messages), self._request.system)
        if not self._request.about:
            return messages
        if messages[0]["role"] != "system":
            return [{"role": "system", "content": self._request.about}, *messages]
        first = {**messages[0], "content": f"{self._request.about}\n\n{text_of(messages[0])}"}
        return [first, *messages[1:]]


def _key(row: Row) -> str:
    return hashlib.sha256("\0".join(sample(row).key).encode()).hexdigest()


def _as_document(row: Row, answer: str | None) -> dict[str, Any]:
    messages = [*row.messages, {"role": "assistant", "content": answer}]
    return {"messages": messages, **({"tools": list(row.tools)} if row.tools else {})}
