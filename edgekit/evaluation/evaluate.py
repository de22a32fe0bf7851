"""Base versus adapter on the evaluation rows, on the torch model or on the exported files."""

from __future__ import annotations

import functools
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from edgekit.bases.probe.window import exact_context
from edgekit.bases.resolve import project_base, resolve_base, templated
from edgekit.data import Row, load_rows
from edgekit.encoding.encoder import Encoder
from edgekit.encoding.images import row_images
from edgekit.evaluation.answers import free_text_fields
from edgekit.evaluation.artifact import Artifact
from edgekit.evaluation.bare import bare_answers
from edgekit.evaluation.calls import call_reader_for
from edgekit.evaluation.preflight import check_evaluate, lacks
from edgekit.evaluation.scoring import Score, Yardstick, score_rows
from edgekit.evaluation.stacked import stack_source, stack_subject, stacked_model
from edgekit.evaluation.torch_model import TorchModel, trained_model
from edgekit.project import Adapter, Project
from edgekit.project.folders import adapter_folder, told
from edgekit.training.card import CardScore, add_scores
from edgekit.training.finished import (
    adapter_source,
    folded_digest,
    shipped_base,
    trained_reasoning,
    trained_weights,
    write_folded,
)
from edgekit.training.kept import as_trained
from edgekit_exporters.base import Base
from edgekit_exporters.bundle import ANY_ISA, BundlePlan, write_bundle
from edgekit_exporters.gguf.projector import projector_gguf
from edgekit_runtime.errors import InputError, UsageError
from edgekit_runtime.files.atomic import write_whole
from edgekit_runtime.files.strict_json import strict_json
from edgekit_runtime.formats.bundle import file_digest

EVALUATION_SCHEMA = "edgekit.evaluation/1"
ANSWER_SLACK = 16  # tokens that an answer may be longer than the longest reference before it is cut off


@dataclass(frozen=True)
class Evaluation:
    """Scores of one adapter or stack and of its base on the same rows.

    Attributes:
        adapter: its name.
        engine: "torch" or the bundle's engine.
        runs_on: the base's precision or quantisation.
        rows: how many rows.
        max_tokens: where answers were cut off.
        base_score: without the adapter; None when that was not asked for.
        adapter_score: with it.
        samples: per row: where it stands, reference, and the answers.
    """

    adapter: str
    engine: str
    runs_on: str
    rows: int
    max_tokens: int
    base_score: Score | None
    adapter_score: Score
    samples: Sequence[dict[str, str]]

    def as_dict(self) -> dict[str, Any]:
        """The JSON document."""
        return {"schema": EVALUATION_SCHEMA, **asdict(self)}

    def save(self, path: Path) -> None:
        """Write the JSON document; raises InputError where it can't be written."""
        write_whole(path, (strict_json(self.as_dict(), indent=2) + "\n").encode())


def evaluate(
    project: Project,
    name: str | None = None,
    *,
    artifact: Path | None = None,
    limit: int | None = None,
    with_base: bool = True,
) -> Evaluation:
    """Score the adapter or stack ``name`` on its evaluation rows with greedy answers.

    Args:
        project: a loaded project file.
        name: the adapter (the only one when None) or stack.
        artifact: a bundle: answers come from its files through the device runtime.  A GGUF base, of any origin, is run
            with this adapter or stack.  Without it the torch model answers, at the precision of the training.
        limit: use only the first rows.
        with_base: score the bare base too.

    Raises:
        InputError: no trained adapter, bad rows, or a bundle without this adapter or stack.
    """
    check_evaluate(project, name, artifact=artifact)
    project = as_trained(project, tell=True)
    stacked = name is not None and name in project.stacks
    adapter = stack_subject(project, str(name)) if stacked else project.adapter(name)
    base, rows, max_tokens, yardstick = questions(project, adapter, limit)
    if artifact is not None:
        with _as_bundle(artifact, project, adapter) as bundle:
            engine, runs_on, base_answers, answers = _artifact_answers(
                project, bundle, adapter, rows, max_tokens, with_base
            )
    else:
        engine, runs_on, base_answers, answers = _torch_answers(project, adapter, base, rows, max_tokens, with_base)
    evaluation = Evaluation(
        adapter=adapter.name,
        engine=engine,
        runs_on=runs_on,
        rows=len(rows),
        max_tokens=max_tokens,
        base_score=score_rows(rows, base_answers, yardstick) if base_answers is not None else None,
        adapter_score=score_rows(rows, answers, yardstick),
        samples=[
            {"where": row.where, "reference": row.answer, "answer": answer}
            for row, answer in zip(rows, answers, strict=True)
        ],
    )
    if not stacked:  # a stack has no folder, and no card in it
        add_scores(adapter_folder(project, adapter), [_card_score(evaluation)])
    return evaluation


def _card_score(evaluation: Evaluation) -> CardScore:
    score, bare = evaluation.adapter_score, evaluation.base_score
    return CardScore(
        answers_of=f"{evaluation.engine}, {evaluation.runs_on}",
        rows=evaluation.rows,
        metric=score.metric,
        base=None if bare is None else 100 * bare.value,
        adapter=100 * score.value,
    )


def evaluate_base(project: Project, name: str, *, artifact: Path | None = None, limit: int | None = None) -> Score:
    """Score the bare base on the rows of adapter ``name``, in torch or (``artifact``) on the device runtime.

    Raises:
        InputError: bad rows or bundle.
    """
    adapter = project.adapter(name)
    base, rows, max_tokens, yardstick = questions(project, adapter, limit)
    if artifact is not None:
        with Artifact(artifact) as opened:
            asked = row_encoder(project, adapter, base).arguments
            answers = opened.answers(rows, adapter.system, max_tokens, adapter=None, template_arguments=asked)
    else:
        weights, reasoning = trained_weights(project, adapter, base), trained_reasoning(project, adapter)
        model = TorchModel(base, weights, None, row_images(project, base), reasoning=reasoning)
        answers = bare_answers(model, base, weights, rows, adapter.system, max_tokens)
    return score_rows(rows, answers, yardstick)


class Questions(NamedTuple):
    """What is asked: ``yardstick`` is decided on all evaluation rows, however few of them are in ``rows``."""

    base: Base
    rows: list[Row]
    max_tokens: int
    yardstick: Yardstick


def questions(project: Project, adapter: Adapter, limit: int | None) -> Questions:
    """The base, at most ``limit`` evaluation rows, how many tokens an answer may have, and how answers are compared.

    Raises:
        InputError: bad rows, or no such base.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"no row is left with a limit of {limit}", "use at least 1")
    files = [load_rows(each) for each in project.eval_files(adapter.name)]
    taken = (row for turn in itertools.zip_longest(*files) for row in turn if row is not None)
    rows = [replace(row, where=told(project, row.where)) for row in taken]
    base = project_base(project)
    encoder = row_encoder(project, adapter, base)
    rows = [encoder.settled(row, adapter.system) for row in rows]
    yardstick = Yardstick(
        free_text_fields([row.answer for row in rows], adapter.schema), call_reader_for(rows, encoder.call_form)
    )
    return Questions(base, rows[:limit], answer_limit(rows[:limit], adapter, encoder), yardstick)


def row_encoder(project: Project, adapter: Adapter, base: Base) -> Encoder:
    """What makes texts of rows as in training."""
    reasoning = trained_reasoning(project, adapter)
    return Encoder(base.folder, reads_images=base.vision is not None, reasoning=reasoning)


def answer_limit(rows: Sequence[Row], adapter: Adapter, encoder: Encoder) -> int:
    """Tokens that an answer may have: a little more than the longest reference, on every engine alike."""
    return max(len(encoder.answer_ids(row, adapter.system)) for row in rows) + ANSWER_SLACK


_Answers = tuple[str, str, list[str] | None, list[str]]


def _torch_answers(
    project: Project, adapter: Adapter, base: Base, rows: Sequence[Row], max_tokens: int, with_base: bool
) -> _Answers:
    model, weights = (stacked_model if adapter.name in project.stacks else trained_model)(project, adapter, base)
    answers = model.answers(rows, adapter.system, max_tokens, with_adapter=True)
    bare = bare_answers(model, base, weights, rows, adapter.system, max_tokens) if with_base else None
    return "torch", weights.label, bare, answers


def _artifact_answers(
    project: Project, bundle: Path, adapter: Adapter, rows: Sequence[Row], max_tokens: int, with_base: bool
) -> _Answers:
    with Artifact(bundle) as opened:
        manifest = opened.runtime.manifest
        if adapter.name in manifest.base.merged:
            answers = opened.answers(rows, adapter.system, max_tokens, adapter=None)
            return manifest.engine, manifest.base.quantization, None, answers
        entry = next((each for each in manifest.subjects if each.name == adapter.name), None)
        if entry is None:
            raise lacks(bundle, project, adapter.name)
        ask = functools.partial(opened.answers, rows, adapter.system, max_tokens)
        answers = ask(adapter=adapter.name)
        bare = ask(adapter=None, template_arguments=entry.template_arguments) if with_base else None
        return manifest.engine, manifest.base.quantization, bare, answers


@contextmanager
def _as_bundle(artifact: Path, project: Project, adapter: Adapter) -> Iterator[Path]:
    """A bundle as it is; a GGUF base together with the adapter, or those of the stack, as a temporary bundle."""
    if not artifact.is_file() or artifact.suffix != ".gguf":
        yield artifact
        return
    base = templated(project, resolve_base(str(artifact.absolute())))
    stack = project.stacks.get(adapter.name)
    asked = [adapter] if stack is None else project.named(list(stack.scales))
    sources = [adapter_source(project, each, base) for each in asked]
    with tempfile.TemporaryDirectory(prefix="edgekit-evaluate-") as scratch:
        file = base.gguf or artifact
        is_folded = stack is None and folded_digest(project, adapter) is not None
        if is_folded:
            file = _folded(project, adapter, artifact, Path(scratch))
        plan = BundlePlan(
            name=project.project,
            version="0",
            task=project.task,
            base=base,
            base_file=file,  # that of several files is one of them
            merged=sources if is_folded else [],
            adapters=[] if is_folded else sources,
            stacks=[] if stack is None else [stack_source(project, adapter, base)],
            default_adapter=None,
            isa=ANY_ISA,
            projector=_projector(project, asked) if project.task == "caption" else None,
            longest=exact_context(base),
        )
        write_bundle(plan, Path(scratch, "bundle"))
        yield Path(scratch, "bundle")


def _folded(project: Project, adapter: Adapter, artifact: Path, scratch: Path) -> Path:
    """A merged adapter in the blocks of ``artifact``, which have to be those that it was trained in."""
    base, file = project_base(project), scratch / "folded.gguf"
    if file_digest(artifact) != trained_weights(project, adapter, base).digest:
        raise InputError(
            f"adapter {adapter.name} was trained merged into other blocks than those of {artifact}",
            "evaluate the bundle that `edgekit export --mode merged` makes",
        )
    write_folded(project, adapter, base, file)
    return file


def _projector(project: Project, adapters: Sequence[Adapter]) -> Path:
    base = project_base(project)
    return projector_gguf(shipped_base(project, adapters, base), project.export.projector)
