"""`edgekit data generate`: new rows from a teacher, after the pattern of rows that there are."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekit.curation.answers import schema_judge, unfenced
from edgekit.curation.asking import Budget
from edgekit.curation.provenance import provenance
from edgekit.curation.row_file import RowFile, open_rows
from edgekit.curation.run import Run, Written
from edgekit.curation.samples import Sample, sample
from edgekit.curation.similar import LIKENESS, NearIndex
from edgekit.curation.teacher import Reply, Teacher, TeacherOptions
from edgekit.curation.variation import Combination, Variation
from edgekit.data import Row
from edgekit.data.columns import PROVENANCE, Columns
from edgekit.data.json_file import parse_json
from edgekit.data.row import Record
from edgekit.data.rows import read_row
from edgekit_runtime.errors import InputError
from edgekit_runtime.prompts.chat import Message, text_of

QUESTION, ANSWER = "prompt", "completion"
SHOTS = 4
CONCURRENCY = 4

_WRITER = (
    "You write examples from which a small language model learns one task. "
    "Each example is a question as real users put it, and the one right answer. "
    "You answer with a JSON object that has the keys prompt and completion, and with nothing else."
)


@dataclass(frozen=True)
class Request:
    """What to generate.

    Attributes:
        seeds: rows that show what others shall be like.
        about: what the teacher is told of the task.
        system: system prompt that the adapter is trained with; the teacher is told it too.
        schema: JSON schema of answers.
        axes: of variation.
        avoid: rows that no new one may come near to, those of evaluation above all.
        shots: how many seeds the teacher sees with each question.
        seed: order of combinations and choice of seeds.
        likeness: from which a new question is a near-duplicate, and refused.
        ignore_numbers: questions that differ in numbers only are near-duplicates too.
    """

    seeds: Sequence[Row]
    about: str | None = None
    system: str | None = None
    schema: Mapping[str, Any] | None = None
    axes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    avoid: Sequence[Row] = ()
    shots: int = SHOTS
    seed: int = 0
    likeness: float = LIKENESS
    ignore_numbers: bool = False


def generate(
    request: Request, teacher: TeacherOptions, output: Path, budget: Budget, *, concurrency: int = CONCURRENCY
) -> Written:
    """Let a teacher write rows until the budget is spent; a second run on the same file goes on.

    Args:
        request: what to generate.
        teacher: who writes.
        output: a JSONL file, to which each row is appended when it comes.
        budget: when to end.
        concurrency: questions at a time.

    Raises:
        InputError: seeds that are no single questions, a schema that is none, or a file that can't be gone on with.
        TargetError: the teacher refuses, or can't be reached; the rows that have come are in the file.
    """
    system = _check_seeds(request.seeds)
    with open_rows(output) as file:
        writer = _Writer(request, system, teacher, Run(file, budget), file)
        return writer.run.ask(teacher, writer.next_job, writer.write, concurrency, budget.rows)


@dataclass(frozen=True)
class _Job:
    number: int
    combination: Combination


class _Writer:
    def __init__(self, request: Request, system: str | None, options: TeacherOptions, run: Run, file: RowFile) -> None:
        self.run = run
        self._request, self._system, self._options = request, system, options
        self._judge = schema_judge(request.schema)
        self._known = NearIndex(request.likeness, ignore_numbers=request.ignore_numbers)
        self._exact: dict[tuple[str, str], str] = {}
        for row in (*request.seeds, *request.avoid):
            self._know(sample(row))
        for number, document in enumerate(file.rows, 1):
            self._know(sample(read_row(Record(document, f"{file.path}:{number}"), file.path.parent, Columns())))
        earlier = [each[PROVENANCE].get("variation", {}) for each in file.rows]
        self._variation = Variation(request.axes, request.seed, earlier)
        self._number = max((each[PROVENANCE].get("number", 0) for each in (*file.rows, *file.refused)), default=0)

    def next_job(self) -> _Job:
        self._number += 1
        return _Job(self._number, self._variation.take())

    async def write(self, job: _Job, teacher: Teacher) -> None:
        """Ask for a row, and keep or refuse it."""
        shown = self._shots(job)
        asked = self._question(shown, job.combination)
        reply = await teacher.ask(asked, _row_schema(self._request.schema))
        origin = provenance(
            "generate",
            self._options,
            asked,
            reply,
            number=job.number,
            seeds=[row.where for row in shown],
            variation=dict(job.combination),
        )
        self._keep(job, reply, origin)
        self.run.count(reply)

    def _keep(self, job: _Job, reply: Reply, origin: dict[str, Any]) -> None:
        row, one = self._row(reply)
        if isinstance(one, str):
            self._variation.refused(job.combination)
            self.run.refuse({**row, PROVENANCE: origin}, one)
            return
        self._know(one)
        self._variation.took(job.combination)
        self.run.take({**row, PROVENANCE: origin})

    def _row(self, reply: Reply) -> tuple[dict[str, Any], Sample | str]:
        """The row that a reply is; or what was said, and what is wrong with it."""
        if reply.text is None:
            return {}, reply.problem or "no answer"
        said = {"reply": reply.text}
        try:
            value = parse_json(unfenced(reply.text))
        except ValueError as error:
            return said, f"no JSON: {error}"
        if not isinstance(value, dict) or set(value) != {QUESTION, ANSWER}:
            return said, f"other form: the keys {QUESTION} and {ANSWER} are asked for"
        question, answer = value[QUESTION], value[ANSWER]
        if not isinstance(answer, str):
            answer = json.dumps(answer, ensure_ascii=False)
        if not isinstance(question, str) or not question.strip() or not answer.strip():
            return said, "other form: the question or the answer is empty, or no text"
        wrong = self._judge(answer)
        if wrong is not None:
            return said, f"breaks the schema: {wrong}"
        row = {QUESTION: question.strip(), ANSWER: answer.strip()}
        row |= {} if self._system is None else {"system": self._system}
        try:
            one = sample(read_row(Record(row, "the row"), Path(), Columns()))
        except InputError as error:
            return said, f"no row: {error.problem}"
        return row, self._known_already(one) or one

    def _known_already(self, one: Sample) -> str | None:
        if one.key in self._exact:
            return f"duplicate: of {self._exact[one.key]}"
        near = self._known.like(one)
        return f"near-duplicate: {near[0][1]:.0%} the same" if near else None

    def _know(self, one: Sample) -> None:
        if self._exact.setdefault(one.key, one.row.where) == one.row.where:
            self._known.add(one)

    def _shots(self, job: _Job) -> list[Row]:
        chosen = random.Random(f"{self._request.seed}:{job.number}")
        return chosen.sample(list(self._request.seeds), min(self._request.shots, len(self._request.seeds)))

    def _question(self, shown: Sequence[Row], combination: Combination) -> list[Message]:
        request = self._request
        system = self._system or request.system
        parts = [f"The task: {text}" for text in (request.about,) if text]
        parts += [f"The small model's instruction: {text}" for text in (system,) if text]
        if request.schema is not None:
            parts.append(
                f"The completion has to fit this JSON schema: {json.dumps(request.schema, ensure_ascii=False)}"
            )
        if shown:
            examples = "\n".join(_as_example(row, request.schema) for row in shown)
            parts.append(f"Examples that there are already:\n{examples}")
        if combination:
            wanted = "\n".join(f"{name}: {value}" for name, value in combination.items())
            parts.append(f"The new example has these properties:\n{wanted}")
        parts.append("Write one new example that differs from all of these in what happens, not only in its words.")
        return [{"role": "system", "content": _WRITER}, {"role": "user", "content": "\n\n".join(parts)}]


def _check_seeds(seeds: Sequence[Row]) -> str | None:
    """The system prompt that all seeds have; None where they have none.

    Raises:
        InputError: they are no single questions with an answer in text, or have different system prompts.
    """
    systems = set()
    for row in seeds:
        asked = [message for message in row.messages if message["role"] != "system"]
        if row.images or row.tools or row.reply is not None or len(asked) != 1 or asked[0]["role"] != "user":
            raise InputError(
                f"{row.where}: only a single question with an answer in text can be a seed",
                "leave out rows with images, tools, reasoning or several turns",
            )
        systems.add(next((text_of(each) for each in row.messages if each["role"] == "system"), None))
    if len(systems) > 1:
        raise InputError("the seeds have different system prompts", "generate for each of them alone")
    return next(iter(systems), None)


def _row_schema(answer: Mapping[str, Any] | None) -> dict[str, Any]:
    """The schema of a row: a question, and an answer of this schema."""
    definitions = {key: answer[key] for key in ("$defs", "definitions") if answer and key in answer}
    inner = {key: value for key, value in (answer or {"type": "string"}).items() if key not in definitions}
    inner.pop("$schema", None)
    return {
        "type": "object",
        "properties": {QUESTION: {"type": "string"}, ANSWER: inner},
        "required": [QUESTION, ANSWER],
        "additionalProperties": False,
        **definitions,  # references start at the root
    }


def _as_example(row: Row, schema: Mapping[str, Any] | None) -> str:
    answer: Any = row.answer
    if schema is not None:
        answer = sample(row).value
    return json.dumps({QUESTION: text_of(row.messages[-1]), ANSWER: answer}, ensure_ascii=False)
