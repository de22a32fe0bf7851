"""A combined adapter, from its parts to its folder: combine, measure, ask the gate, publish."""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekit.bases.resolve import base_label, loading_name, project_base
from edgekit.bases.weights import Weights, deployed_weights
from edgekit.combining.gate import check_parts
from edgekit.combining.learn import Learned, learn_weights
from edgekit.combining.measure import Measure, PartScore
from edgekit.combining.preflight import check_combine
from edgekit.project import Adapter, Project
from edgekit.project.folders import adapter_folder, is_adapter_folder, told_part, told_settings
from edgekit.training.card import write_card
from edgekit.training.history import FINISHED
from edgekit.training.kept import as_trained
from edgekit.training.parts import (
    FoundPart,
    combination,
    combined_pairs,
    common_reasoning,
    common_weights,
    find_parts,
    tell_of_systems,
)
from edgekit.training.record import RunRecord
from edgekit_exporters.base import Base
from edgekit_exporters.hf.templates import template_facts
from edgekit_exporters.peft.combinations import LEARNED
from edgekit_exporters.peft.intake import is_dead, take_in
from edgekit_exporters.peft.written import write_peft
from edgekit_exporters.progress import stage
from edgekit_runtime.errors import InputError
from edgekit_runtime.files.atomic import publish

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Made:
    """A combination that took its place: its folder, and what run.json says of its parts."""

    folder: Path
    combined: dict[str, Any]


def make_combined(project: Project, name: str, *, accept_loss: str | None = None) -> Made:
    """Make the combined adapter ``name`` of ``project`` and put it into ``adapters/NAME``.

    Args:
        project: a loaded project file; ``gate.rows`` bounds the rows that are asked of each part, 0 asks none.
        name: an adapter with ``combined:``.
        accept_loss: the reason to keep a combination that loses too much on a part; it goes into run.json.

    Raises:
        UsageError: it isn't made of others.
        InputError: a part that is missing, of another base, or can't be combined; a combination that changes nothing.
        GateRefused: it loses too much on the rows of a part; an earlier one stays in its place.
        KeyboardInterrupt: after Ctrl-C; likewise.
    """
    adapter = check_combine(project, name, accept_loss=accept_loss)
    project = as_trained(project)
    begun, base = time.monotonic(), project_base(project)
    assert adapter.combined is not None
    with stage(f"reading the parts of {name}"):
        parts = find_parts(project, adapter.combined.parts, base)
    tell_of_systems(adapter, parts)
    weights = common_weights(project, adapter, parts, base)
    learns = adapter.combined.method == LEARNED
    learned = learn_weights(project, adapter, parts, base, weights) if learns else None
    folder = adapter_folder(project, adapter)
    with publish(folder, is_ours=is_adapter_folder) as temporary:
        with stage(f"combining {', '.join(part.name for part in parts)} ({adapter.combined.method})"):
            how = combination(adapter.combined, adapter.seed)
            made = combined_pairs(parts, adapter.combined.parts, how, None if learned is None else learned.weights)
            write_peft(made, base, loading_name(base), temporary)
        if is_dead(take_in(temporary, base)):
            raise InputError(f"{name} changes nothing: its parts cancel out", "use other weights")
        scores = _scores(project, parts, base, weights, temporary, name)
        document = _document(project, adapter, parts, scores, accept_loss, learned)
        check_parts(name, document, project.gate)
        record = _record(project, adapter, parts, base, weights, document, time.monotonic() - begun)
        if learned is not None:
            record = replace(record, losses=learned.losses, kept_step=learned.kept_step)
        record.save(temporary)
        write_card(temporary, record, base, task=project.task)
    return Made(folder, document)


def _scores(
    project: Project, parts: Sequence[FoundPart], base: Base, weights: Weights, folder: Path, name: str
) -> list[PartScore]:
    without = [part.name for part in parts if not part.has_rows]
    if project.gate.rows == 0 or len(without) == len(parts):
        log.warning("%s is not measured: there are no evaluation rows of its parts to ask", name)
        return []
    if without:
        log.warning("%s is not measured on %s: the project has no rows of it", name, ", ".join(without))
    return Measure(project, parts, base, weights, project.gate.rows).scores(folder, name)


def _document(
    project: Project,
    adapter: Adapter,
    parts: Sequence[FoundPart],
    scores: Sequence[PartScore],
    accept_loss: str | None,
    learned: Learned | None,
) -> dict[str, Any]:
    assert adapter.combined is not None
    weights: dict[str, dict[str, Any]] = {
        part.name: {"weight": adapter.combined.parts[part.name]}
        if learned is None
        else {"weight": learned.mean(part.name), "of_layers": dict(learned.weights[part.name])}
        for part in parts
    }
    by_part = {score.part: score.as_dict() for score in scores}
    return {
        "settings": told_settings(project, adapter.combined),
        "seed": adapter.seed,
        "parts": [
            {"name": told_part(project, part.name), **weights[part.name], "digest": part.digest}
            | by_part.get(part.name, {})
            for part in parts
        ],
        "accepted": accept_loss,
    } | ({} if learned is None else {"learned": learned.as_dict()})


def _record(
    project: Project,
    adapter: Adapter,
    parts: Sequence[FoundPart],
    base: Base,
    weights: Weights,
    document: dict[str, Any],
    seconds: float,
) -> RunRecord:
    deployed = weights if weights.blocks is not None else deployed_weights(project.export, base.gguf)
    return RunRecord(
        adapter=adapter.name,
        base=base_label(project, base),
        family=base.family,
        base_precision=weights.precision,
        quantization=deployed.quantization,
        blocks=weights.digest,
        system=adapter.system,
        template=template_facts(base.folder).digest,
        reasoning=common_reasoning(adapter, parts),
        hyperparameters={},
        data={},
        losses=[],
        result={},
        status=FINISHED,
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        seconds=round(seconds, 3),
        combined=document,
    )
