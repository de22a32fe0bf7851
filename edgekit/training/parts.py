"""The parts of a combination or a stack: found in the project or at paths, checked, brought to plain pairs."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.bases.weights import Weights, training_weights, with_blocks
from edgekit.project import Adapter, Combined, Project
from edgekit.project.combined import DENSITY, adapter_digest
from edgekit.project.folders import part_folder, trained_folder
from edgekit.training.finished import folded_digest, trained_reasoning, trained_weights
from edgekit.training.no_update import no_update
from edgekit_exporters.base import Base
from edgekit_exporters.peft.canonical import CanonicalAdapter, NotAdditive, canonicalize
from edgekit_exporters.peft.combinations import Combination
from edgekit_exporters.peft.combine import Part, combine
from edgekit_exporters.peft.intake import take_in_any
from edgekit_exporters.peft.prompts import TakenPrompt
from edgekit_runtime.errors import InputError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoundPart:
    """One part.

    Attributes:
        name: as the combination names it.
        adapter: of the project; for a path one that says nothing but where it is.
        folder: where it is, in any form that adapters are taken in.
        digest: sha256 of its settings and tensors.
        pairs: its updates.
        weights: of the base in its training.
        reasoning: of its training.
        has_rows: whether the project names evaluation rows of it.
    """

    name: str
    adapter: Adapter
    folder: Path
    digest: str
    pairs: CanonicalAdapter
    weights: Weights
    reasoning: str | None
    has_rows: bool


def find_parts(project: Project, names: Iterable[str], base: Base) -> list[FoundPart]:
    """Read all parts: adapters of the project, or paths, of which it makes adapters that say where they are.

    Raises:
        InputError: a part that is not there, not of this base, or that can't be a sum of pairs; it is named.
    """
    found = []
    for name in names:
        known = project.adapters.get(name)
        adapter = known or Adapter(name=name, path=part_folder(project, name))
        folder = trained_folder(project, adapter)
        if folded_digest(project, adapter) is not None:
            raise InputError(
                f"{name} was trained merged: beside the base it is another adapter", "train it without merged"
            )
        found.append(
            FoundPart(
                name=name,
                adapter=adapter,
                folder=folder,
                digest=adapter_digest(folder),
                pairs=_pairs(name, folder, base),
                weights=trained_weights(project, adapter, base),
                reasoning=trained_reasoning(project, adapter),
                has_rows=known is not None and (adapter.data is not None or project.data is not None),
            )
        )
    return found


def combination(combined: Combined, seed: int) -> Combination:
    """The settings as exporters take them."""
    return Combination(combined.method, combined.rank, combined.density or DENSITY, seed)


def combined_pairs(
    parts: Sequence[FoundPart],
    weights: Mapping[str, float],
    how: Combination,
    of_layers: Mapping[str, Mapping[str, float]] | None = None,
) -> CanonicalAdapter:
    """The pairs of the combination.

    Args:
        parts: of one base.
        weights: of each part.
        how: the method.
        of_layers: of single layers of a part, in the place of its weight.

    Raises:
        InputError: as :func:`~edgekit_exporters.peft.combine.combine`.
    """
    learned = of_layers or {}
    return combine([Part(part.name, part.pairs, weights[part.name], learned.get(part.name, {})) for part in parts], how)


def common_weights(project: Project, adapter: Adapter, parts: Sequence[FoundPart], base: Base) -> Weights:
    """The base's weights that parts and combination are asked on: those of all trainings, else what devices run."""
    first = parts[0].weights
    if all(part.weights == first for part in parts):
        return first
    return with_blocks(project, base, training_weights(adapter, project.export, base.gguf))


def common_reasoning(adapter: Adapter, parts: Sequence[FoundPart]) -> str | None:
    """``keep`` or ``drop``: as the project says, else as all parts were trained."""
    modes = {part.reasoning for part in parts}
    return adapter.reasoning or (modes.pop() if len(modes) == 1 else None)


def tell_of_systems(adapter: Adapter, parts: Sequence[FoundPart]) -> None:
    """Warn where the combination gets another system prompt than all parts were trained with."""
    systems = {part.adapter.system for part in parts if part.has_rows}
    if len(systems) == 1 and adapter.system not in systems:
        log.warning("%s has another system prompt than all its parts have: set adapters.%s.system", *[adapter.name] * 2)


def _pairs(name: str, folder: Path, base: Base) -> CanonicalAdapter:
    if isinstance(taken := take_in_any(folder, base), TakenPrompt):
        raise no_update(name)
    if taken.connector is not None:
        raise InputError(f"{name} has trained the connector, which can't be combined", "train without connector")
    try:
        return canonicalize(folder, base)
    except NotAdditive as error:
        reason = error.problem.partition(": ")[2]
        raise InputError(f"{name} can't be combined: {reason}", "train it as plain LoRA") from None
