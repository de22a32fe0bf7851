"""Leave matrices of a trained adapter out until it decodes fast enough, train the others on, and ask what it lost."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import transformers

from edgekit.bases.weights import deployed_weights
from edgekit.encoding.encoder import IGNORED
from edgekit.evaluation.evaluate import evaluate
from edgekit.evaluation.scoring import Score, bootstrap_interval, points_between
from edgekit.project import AUTO, Adapter, Project, with_settings
from edgekit.project.folders import adapter_folder, is_adapter_folder, trained_folder
from edgekit.project.run_record import read_record
from edgekit.targets.devices import device_profile
from edgekit.targets.subject import subject_of_base
from edgekit.training.card import CardScore, add_scores, write_card
from edgekit.training.checkpoints import full_disk_told, work_folder
from edgekit.training.finished import trained_weights
from edgekit.training.lora import load_pairs
from edgekit.training.preflight import check_auto
from edgekit.training.prepared import Prepared, prepare
from edgekit.training.record import RunRecord
from edgekit.training.run import train, wrapped_model
from edgekit.trimming.choice import Unit, search, units_of
from edgekit.trimming.contributions import ROWS, Contributions
from edgekit.tuning.search import deployed_blocks, on_trial
from edgekit_devices.adapter_cost import Shape, decode_share, extra_s
from edgekit_devices.profiles import Profile
from edgekit_devices.speed import Model, decode_tps, speed_of
from edgekit_exporters.base import Base
from edgekit_exporters.conversion.tensor_map import tensor_map
from edgekit_runtime.errors import GateRefused, InputError, UsageError
from edgekit_runtime.files.atomic import publish

log = logging.getLogger(__name__)

ANY_DEVICE = "x86-64-avx2"  # what decode is estimated for where the project names no device
POSITION = 256  # tokens in the cache that it is estimated for


@dataclass(frozen=True)
class Trimmed:
    """What came of it; ``share`` are decode speeds on ``device`` as shares of the base's, estimates.

    Attributes:
        adapter: its name.
        device: the profile.
        budget: the share that was asked for.
        share: of the adapter now.
        share_before: of the adapter with all its matrices.
        matrices: that it changes now.
        matrices_before: that it changed.
        kept: kind of a matrix -> its layers.
        score: on the evaluation rows, 0-100; None where the proof is switched off.
        score_before: with all matrices, likewise.
        loss_interval: 95 % interval of the points lost, paired bootstrap over rows; likewise.
        rows: that were asked.
        run: of the training before it.
        folder: where the adapter is.
    """

    adapter: str
    device: str
    budget: float
    share: float
    share_before: float
    matrices: int
    matrices_before: int
    kept: Mapping[str, Sequence[int]]
    score: float | None
    score_before: float | None
    loss_interval: tuple[float, float] | None
    rows: int
    run: str
    folder: Path

    def as_dict(self) -> dict[str, Any]:
        """For run.json."""
        left_out = ("adapter", "folder")
        return {key: value for key, value in vars(self).items() if key not in left_out}

    def text(self) -> str:
        """A line for a reader."""
        speed = f"decode {self.share:.2f} of the base's on {self.device} (estimate; {self.share_before:.2f} before)"
        score = "" if self.score is None else f", score {self.score:.1f} ({self.score_before:.1f} before)"
        return f"{self.matrices} of {self.matrices_before} matrices left: {speed}{score}"


def trim(project: Project, name: str | None = None, *, settings: Mapping[str, Any] | None = None) -> Trimmed:
    """Trim the trained adapter ``name`` of ``project``, whose targets are ``auto``, to its decode budget.

    What its matrices contribute is measured on training rows; what is left is trained on for as many steps
    again.  The adapter takes the place of the untrimmed one when its score on the evaluation rows is within the gate's
    limit.

    Args:
        project: a loaded project file.
        name: the adapter (the only one when None).
        settings: that the training had beside the project file.

    Raises:
        UsageError: its targets aren't auto, or what is exported leaves nothing to trim.
        InputError: it isn't trained, is trimmed already, or no matrix is within the budget.
        GateRefused: the score can't be kept; the untrimmed adapter stays.
        KeyboardInterrupt: after Ctrl-C; the untrimmed adapter stays.
    """
    name = project.adapter(name).name
    record = read_record(adapter_folder(project, project.adapter(name))) or {}
    given = settings if settings is not None else record.get("settings") or {}
    changed = with_settings(project, [name], given)
    adapter = changed.adapter(name)
    check_auto(changed, adapter)
    if adapter.path is not None or adapter.targets != AUTO:
        raise UsageError(f"adapter {name} has no targets: auto", "set it, and decode_budget: 0.9 say")
    trained_folder(changed, adapter)
    if record.get("trimmed"):
        raise InputError(f"adapter {name} is trimmed already", f"train it again, `edgekit train {name}`")
    try:
        return _Work(changed, adapter, record, given).done()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"while trimming; the adapter with all its matrices stays; go on with `edgekit trim {name}`"
        ) from None


class _Work:
    """What trimming one adapter is made of."""

    def __init__(self, project: Project, adapter: Adapter, record: dict[str, Any], settings: Mapping[str, Any]) -> None:
        self.project, self.adapter, self.record, self.settings = project, adapter, record, settings
        self.whole = adapter_folder(project, adapter)
        self.scratch = work_folder(project, adapter.name).with_name(f"{adapter.name}-trim")
        self.profile: Profile = device_profile(project.export.device or ANY_DEVICE)
        self.prepared: Prepared = prepare(project, adapter, {})
        self.base: Base = self.prepared.base
        trained_weights(project, adapter, self.base)  # refuses other blocks than it was trained on
        self.model: Model = subject_of_base(
            self.base, deployed_weights(project.export, self.base.gguf), project.export
        ).model

    def done(self) -> Trimmed:
        """All of it."""
        budget = self.adapter.least_share
        units, kept = self._kept(budget)
        before, after = self._share(units), self._share(kept)
        log.info(
            "%s: %d of %d matrices stay; decode on %s about %.2f of the base's instead of %.2f",
            *(self.adapter.name, _count(kept), _count(units), self.profile.name, after, before),
        )
        with self._trained(kept) as folder:
            old, new = self._score(self.whole), self._score(folder)
            losses = None if old is None or new is None else points_between(old, new)
            trimmed = Trimmed(
                adapter=self.adapter.name,
                device=self.profile.name,
                budget=budget,
                share=round(after, 4),
                share_before=round(before, 4),
                matrices=_count(kept),
                matrices_before=_count(units),
                kept=_by_kind(kept),
                score=None if new is None else round(100 * new.value, 3),
                score_before=None if old is None else round(100 * old.value, 3),
                loss_interval=None if losses is None else bootstrap_interval(losses),
                rows=0 if losses is None else len(losses),
                run=self.record.get("run", ""),
                folder=self.whole,
            )
            judge(trimmed, self.project.gate.max_loss_points)
            self._publish(folder, trimmed, new)
        return trimmed

    def _kept(self, budget: float) -> tuple[list[Unit], list[Unit]]:
        """All units of the adapter, and those that stay."""
        transformers.set_seed(self.adapter.seed)
        model = wrapped_model(self.prepared)
        load_pairs(model, self.whole)
        collator = transformers.DataCollatorForSeq2Seq(self.prepared.encoder.tokenizer, label_pad_token_id=IGNORED)
        weighed = Contributions(model, collator, self.prepared.datasets[0][:ROWS])
        units = units_of(weighed.modules, tensor_map(self.base.folder))
        costs = {unit: extra_s(self.profile, Shape(unit.matrices, self.adapter.highest_rank)) for unit in units}

        def measure(some: Sequence[Unit]) -> dict[Unit, float]:
            parts = weighed.of([module for unit in some for module in unit.modules])
            return {unit: sum(parts[module] for module in unit.modules) for unit in some}

        kept = search(units, costs, self._allowed(budget), measure)
        names = [module for unit in kept for module in unit.modules]
        log.info(
            "%s: loss of %d training rows %.3f with all matrices, %.3f with these, %.3f with none",
            *(self.adapter.name, len(self.prepared.datasets[0][:ROWS])),
            *(weighed.loss(some) for some in (weighed.modules, names, [])),
        )
        return units, kept

    def _allowed(self, budget: float) -> float:
        """Seconds that the adapter may add to a token."""
        base = 1 / decode_tps(speed_of(self.profile), self.model, POSITION).value
        return base / budget - base

    def _share(self, units: Sequence[Unit]) -> float:
        shape = Shape(tuple(matrix for unit in units for matrix in unit.matrices), self.adapter.highest_rank)
        return decode_share(self.profile, self.model, [shape], POSITION).value

    @contextmanager
    def _trained(self, kept: Sequence[Unit]) -> Iterator[Path]:
        """A folder with what is left of the adapter, trained on."""
        adapter, folder = self.adapter, self.scratch / "adapter"
        changed = replace(
            adapter,
            targets=tuple(module for unit in kept for module in unit.modules),
            decode_budget=None,
        )
        project = replace(self.project, adapters={**self.project.adapters, adapter.name: changed})
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir(parents=True)
        try:
            with full_disk_told(self.scratch):
                yield train(project, adapter.name, output=folder, start=self.whole)
        finally:
            shutil.rmtree(self.scratch, ignore_errors=True)

    def _score(self, folder: Path) -> Score | None:
        """Of greedy answers, on the device's engine where it runs the blocks trained on."""
        if self.project.gate.rows == 0:
            return None
        name = self.adapter.name
        there = on_trial(self.project, name, {}, folder)
        device = deployed_blocks(self.project, name)
        return evaluate(there, name, artifact=device, limit=self.project.gate.rows, with_base=False).adapter_score

    def _publish(self, folder: Path, trimmed: Trimmed, score: Score | None) -> None:
        document = read_record(folder)
        assert document is not None  # training has just written it
        record = replace(RunRecord.of(document), settings=dict(self.settings), trimmed=trimmed.as_dict())
        with publish(self.whole, is_ours=is_adapter_folder) as temporary:
            shutil.copytree(folder, temporary, dirs_exist_ok=True)
            record.save(temporary)
            write_card(temporary, record, self.base, task=self.project.task)
            if score is not None:
                engine = "torch" if deployed_blocks(self.project, trimmed.adapter) is None else "llama.cpp"
                runs_on = record.quantization or record.base_precision
                said = CardScore(f"{engine}, {runs_on}", score.rows, score.metric, None, 100 * score.value)
                add_scores(temporary, [said])


def judge(found: Trimmed, limit: float) -> None:
    """Refuse what has lost more points of its score than ``limit``, even at the favourable end of the interval.

    Raises:
        GateRefused: it has, or its loss is no number.
    """
    if found.loss_interval is None:
        log.warning("the proof is switched off (gate.rows: 0): nobody asked what %s has lost", found.adapter)
    elif not found.loss_interval[0] <= limit:  # NaN is no small loss
        low, high = found.loss_interval
        raise GateRefused(
            f"{found.adapter} can't keep its score at {found.budget:g} of the base's decode speed: it scores"
            f" {found.score:.1f} with {found.matrices} of {found.matrices_before} matrices and"
            f" {found.score_before:.1f} with all ({low:.1f} to {high:.1f} points lost, allowed: {limit:g}); the adapter"
            " with all matrices stays",
            "lower decode_budget, train longer, or raise gate.max_loss_points",
        )


def _count(units: Sequence[Unit]) -> int:
    return sum(len(unit.matrices) for unit in units)


def _by_kind(units: Sequence[Unit]) -> dict[str, list[int]]:
    """The layers of each kind of matrix."""
    found: dict[str, list[int]] = {}
    for unit in units:
        for matrix in unit.matrices:
            found.setdefault(matrix.kind, []).append(matrix.layer)
    return {kind: sorted(layers) for kind, layers in found.items()}
