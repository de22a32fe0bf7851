"""`edgekit data check`: what is wrong with the rows of an adapter before a training spends time on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgekit.curation.answers import schema_judge
from edgekit.curation.calls import CallJudge
from edgekit.curation.findings import KINDS, NOTE, Finding
from edgekit.curation.labels import ANSWER, Label, counted, find_labels, value_text
from edgekit.curation.lengths import CHARACTERS, Lengths, Measure, characters, lengths_of
from edgekit.curation.personal import find_personal
from edgekit.curation.samples import Sample, sample
from edgekit.curation.similar import LIKENESS, NearIndex, near_pairs
from edgekit.data import DataSource, look_at_rows
from edgekit.pages.signs import visible

_LARGEST_SHARE = 0.9  # of one value of a label
_LEAST_ROWS = 5  # of a value, to be learnt
_REPLACED = "\ufffd"  # what a decoder puts where bytes are no text


@dataclass(frozen=True)
class Subject:
    """What to check.

    Attributes:
        name: of the data set: that of its adapter, or of its file.
        train: rows to train on; of several sources all.
        eval: rows to evaluate on.
        schema: JSON schema of answers.
        measure: length of a row.
        unit: of ``measure``.
        longest: what training allows, in ``unit``.
    """

    name: str
    train: Sequence[DataSource | Path]
    eval: Sequence[DataSource | Path] = ()
    schema: Mapping[str, Any] | None = None
    measure: Measure = characters
    unit: str = CHARACTERS
    longest: int | None = None


@dataclass(frozen=True)
class Part:
    """Training or evaluation rows."""

    rows: int
    lengths: Lengths | None
    labels: Sequence[Label]


@dataclass(frozen=True)
class Checked:
    """What was found in a data set; ``eval`` is None where it has no evaluation rows."""

    name: str
    train: Part
    eval: Part | None
    schema_checked: bool
    findings: Sequence[Finding]

    @property
    def counts(self) -> dict[str, int]:
        """Findings of each kind that there is, the gravest kind first."""
        kinds = [finding.kind for finding in self.findings]
        return {kind: kinds.count(kind) for kind in KINDS if kind in kinds}

    @property
    def to_mend(self) -> int:
        """Findings that are more than notes."""
        return sum(finding.level != NOTE for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            "train": asdict(self.train),
            "eval": None if self.eval is None else asdict(self.eval),
            "schema_checked": self.schema_checked,
            "counts": self.counts,
            "findings": [finding.as_dict() for finding in self.findings],
        }


def check(
    subject: Subject, *, likeness: float = LIKENESS, ignore_numbers: bool = False, region: str | None = None
) -> Checked:
    """Look at all rows of a data set.

    Args:
        subject: the rows, and what they shall keep to.
        likeness: from which two questions are near-duplicates, 0.7 to 1.
        ignore_numbers: questions that differ in numbers only are near-duplicates too.
        region: country of telephone numbers without +.

    Raises:
        InputError: a file is missing, a hub data set can't be reached, or the schema is none.
    """
    judge = schema_judge(subject.schema)
    findings: list[Finding] = []
    train = _read(subject.train, findings)
    evaluation = _read(subject.eval, findings)
    both = [*train, *evaluation]
    findings += (Finding("schema", each.row.where, wrong) for each in both if (wrong := judge(each.row.answer)))
    calls = CallJudge()
    findings += (Finding("tools", each.row.where, wrong) for each in both for wrong in calls.wrong(each.row))
    findings += _leaks(train, evaluation, likeness, ignore_numbers)
    findings += _contradictions(both)
    for part in (train, evaluation):
        findings += _repeated(part, likeness, ignore_numbers)
    findings += _personal(both, region)
    findings += (Finding("odd", each.row.where, text) for each in both for text in _oddities(each))
    measured = [(each, subject.measure(each.row)) for each in both]
    if subject.longest is not None:
        text = f"{{}} {subject.unit}, and training allows {subject.longest}"
        findings += (
            Finding("too-long", each.row.where, text.format(length))
            for each, length in measured
            if length > subject.longest
        )
    known = [length for _, length in measured]
    parts = [
        Part(len(samples), lengths_of([each for each in lengths if each >= 0], subject.unit), find_labels(samples))
        for samples, lengths in ((train, known[: len(train)]), (evaluation, known[len(train) :]))
    ]
    parts[1] = replace(parts[1], labels=[_same_label(label, evaluation) for label in parts[0].labels])
    findings += _balance(subject, parts[0], parts[1] if subject.eval else None)
    order = list(KINDS)
    findings.sort(key=lambda finding: order.index(finding.kind))  # stable: rows stay in their order
    return Checked(subject.name, parts[0], parts[1] if subject.eval else None, subject.schema is not None, findings)


def _read(sources: Sequence[DataSource | Path], findings: list[Finding]) -> list[Sample]:
    samples = []
    for source in sources:
        looked = look_at_rows(source)
        samples += [sample(row) for row in looked.rows]
        for error in looked.refused:
            where, colon, text = error.problem.partition(": ")
            findings.append(Finding("unreadable", where if colon else str(source), text if colon else error.problem))
        if not looked.rows and not looked.refused:
            findings.append(Finding("unreadable", str(source), "there are no rows"))
    return samples


def _leaks(
    train: Sequence[Sample], evaluation: Sequence[Sample], likeness: float, ignore_numbers: bool
) -> Iterator[Finding]:
    exact = {each.key: each for each in reversed(train)}
    if not evaluation:
        return
    index = NearIndex(likeness, ignore_numbers=ignore_numbers)
    unique = list(exact.values())
    for each in unique:
        index.add(each)
    for each in evaluation:
        if each.key in exact:
            yield Finding("leak", each.row.where, "training has this question", exact[each.key].row.where)
        elif near := index.like(each):
            number, alike = near[0]
            yield Finding("near-leak", each.row.where, f"{alike:.0%} the same", unique[number].row.where)


def _contradictions(samples: Sequence[Sample]) -> Iterator[Finding]:
    first_of: dict[tuple[str, str], Sample] = {}
    for each in samples:
        first = first_of.setdefault(each.key, each)
        if first.meaning != each.meaning:
            yield Finding("contradiction", each.row.where, _difference(first, each), first.row.where)


def _difference(one: Sample, other: Sample) -> str:
    if isinstance(one.value, dict) and isinstance(other.value, dict):
        names = [name for name in {**one.value, **other.value} if one.value.get(name) != other.value.get(name)]
        return f"another {', '.join(names)}"
    return "another answer"


def _repeated(samples: Sequence[Sample], likeness: float, ignore_numbers: bool) -> Iterator[Finding]:
    for number, earlier, alike in near_pairs(samples, likeness, ignore_numbers=ignore_numbers):
        one, other = samples[number], samples[earlier]
        if one.key != other.key:
            text = f"{alike:.0%} the same" + ("" if one.meaning == other.meaning else ", and another answer")
            yield Finding("near-duplicate", one.row.where, text, other.row.where)
        elif one.meaning == other.meaning:
            yield Finding("duplicate", one.row.where, "the row is there twice", other.row.where)


def _personal(samples: Sequence[Sample], region: str | None) -> Iterator[Finding]:
    for each in samples:
        for place, text in (("question", each.question), ("answer", each.row.answer)):
            for found in find_personal(text, region):
                yield Finding("personal", each.row.where, f"{found.kind} in the {place}: {found.masked}")


def _too_long(measured: Sequence[tuple[Sample, int]], subject: Subject) -> Iterator[Finding]:
    for each, length in measured:
        if subject.longest is not None and length > subject.longest:
            text = f"{length} {subject.unit}, and training allows {subject.longest}"
            yield Finding("too-long", each.row.where, text)


def _oddities(each: Sample) -> Iterator[str]:
    answer = each.row.answer
    if not each.question.strip() and not each.row.images:
        yield "the question is empty"
    if answer.strip() == each.question.strip():
        yield "the answer is the question"
    if answer != answer.strip():
        yield "the answer begins or ends with white space, which the model learns too"
    if _REPLACED in each.question + answer:
        yield "signs were lost when the text was decoded"
    if visible(answer) != answer.replace("\r\n", "\n"):
        yield "the answer has signs that nobody sees"


def _same_label(label: Label, samples: Sequence[Sample]) -> Label:
    """Values of a training label in other rows."""
    if label.name == ANSWER:
        return counted(label.name, [each.row.answer.strip() for each in samples])
    objects = [each.value for each in samples if isinstance(each.value, dict)]
    return counted(label.name, [each[label.name] for each in objects if label.name in each])


def _balance(subject: Subject, train: Part, evaluation: Part | None) -> Iterator[Finding]:
    for number, label in enumerate(train.labels):
        value, most = next(iter(label.counts.items()))
        if most > _LARGEST_SHARE * train.rows:
            yield Finding("balance", subject.name, f"{label.name} is {value!r} in {most} of {train.rows} training rows")
        for value, count in label.counts.items():
            if count < _LEAST_ROWS:
                yield Finding("balance", subject.name, f"{label.name} is {value!r} in {_rows(count)} of training only")
        for value in _allowed(subject.schema, label.name):
            if value not in label.counts:
                text = f"the schema allows {label.name} to be {value!r}, and no training row has it"
                yield Finding("balance", subject.name, text)
        if evaluation is not None:
            for value in evaluation.labels[number].counts.keys() - label.counts.keys():
                yield Finding("balance", subject.name, f"{label.name} is {value!r} in evaluation and never in training")


def _rows(count: int) -> str:
    return "one row" if count == 1 else f"{count} rows"


def _allowed(schema: Mapping[str, Any] | None, name: str) -> list[str]:
    field = (schema or {}).get("properties", {}).get(name)
    return [value_text(each) for each in field.get("enum", ())] if isinstance(field, dict) else []
