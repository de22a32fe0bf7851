"""Training one adapter with transformers' Trainer: prepare, fit, publish."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import transformers

from edgekit.bases.folded_layers import fold_layers, trained_pairs
from edgekit.bases.resolve import base_label, loading_name
from edgekit.bases.torch_model import load_base
from edgekit.encoding.images import let_see
from edgekit.project import P_TUNING, PREFERENCE, VIRTUAL, Project, with_settings
from edgekit.project.folders import is_adapter_folder
from edgekit.training.card import write_card
from edgekit.training.checkpoints import find_checkpoint, full_disk_told, save_adapter, save_initial
from edgekit.training.evaluations import OnEvaluation, Told
from edgekit.training.history import EARLY, FAILED, FINISHED, INTERRUPTED, STOPPED, begin_run, keep_run
from edgekit.training.interrupt import StopOnInterrupt
from edgekit.training.lora import CHANGES_BASE, load_pairs, wrap
from edgekit.training.outlook import TimeTold, tell_plan
from edgekit.training.preference import preference_trainer
from edgekit.training.preflight import check_train
from edgekit.training.prepared import Prepared, hyperparameters, prepare
from edgekit.training.progress import Progress
from edgekit.training.record import PLOT_FILE, RunRecord, curve, plot_losses
from edgekit.training.samples import Samples
from edgekit.training.trackers import tracking, tracking_arguments
from edgekit.training.trainer import adapter_trainer, uses_checkpointing
from edgekit.training.virtual_tokens import KeptEncoder, wrap_with_virtual_tokens
from edgekit_exporters.peft.names import ADAPTER
from edgekit_exporters.progress import stage
from edgekit_runtime.errors import InputError
from edgekit_runtime.files.atomic import publish

log = logging.getLogger(__name__)

INITIAL_FOLDER = "initial"
NO_BLOCKS = "none"  # in the place of a digest


def train(
    project: Project,
    name: str | None = None,
    *,
    resume: bool = False,
    settings: Mapping[str, Any] | None = None,
    output: Path | None = None,
    on_evaluation: OnEvaluation | None = None,
    start: Path | None = None,
) -> Path:
    """Train the adapter ``name`` of ``project`` (the only one when None) and return its PEFT folder.

    The folder also gets run.json and loss.png.  It replaces an earlier one only when training has finished.

    Args:
        project: a loaded project file.
        name: adapter to train.
        resume: go on from the last checkpoint of a run that was interrupted.
        settings: of the adapter, instead of those in the project file; see
            :func:`~edgekit.project.changes.with_settings`.
        output: folder of the adapter, instead of ``adapters/NAME`` in the project; checkpoints lie beside it, so that
            several processes can train.
        on_evaluation: is told step and evaluation loss (nats per answer token) of each evaluation; what it raises
            stops the training.
        start: folder of a trained adapter of the same rank, whose pairs training begins with.

    Raises:
        InputError: bad data or base, nothing to resume, or a start that lacks a pair.
        UsageError: settings that don't fit together, or that the project file couldn't have.
        KeyboardInterrupt: after Ctrl-C, when the checkpoint is written.
    """
    name = project.adapter(name).name
    project = with_settings(project, [name], settings or {})
    check_train(project, [name])
    prepared = prepare(project, project.adapter(name), settings or {}, output)
    with full_disk_told(prepared.work):
        model, record = _fit(prepared, resume=resume, on_evaluation=on_evaluation, start=start)
        return _publish(prepared, model, replace(record, folded=_folded(prepared, model)))


def wrapped_model(prepared: Prepared) -> Any:
    """The base at the weights of this training, with the adapter to be trained around it."""
    transformers.set_seed(prepared.adapter.seed)
    base, adapter, precision = load_base(prepared.base, prepared.weights), prepared.adapter, prepared.weights.precision
    checkpointing = uses_checkpointing()
    if adapter.method in VIRTUAL:
        model = wrap_with_virtual_tokens(base, adapter, precision, prepared.encoder, checkpointing=checkpointing)
    else:
        model = wrap(
            let_see(base, prepared.images),
            adapter,
            precision,
            checkpointing=checkpointing,
            invocation=prepared.invocation,
            left_out=prepared.left_out,
            reads_images=prepared.base.vision is not None,
        )
        if prepared.folding is not None:
            fold_layers(model, prepared.folding)
    # The folder for now: PEFT looks for its config with each checkpoint, and asks the hub for anything else.
    model.peft_config[ADAPTER].base_model_name_or_path = str(prepared.base.folder)
    return model


def make_trainer(prepared: Prepared, model: Any, work: Path, run: str) -> transformers.Trainer:
    """The Trainer of ``model``; checkpoints go to ``work``, trackers know it as ``run``."""
    reporting = tracking_arguments(prepared.project, prepared.adapter, run)
    make = preference_trainer if prepared.adapter.method == PREFERENCE else adapter_trainer
    return make(model, prepared.encoder, prepared.datasets, prepared.adapter, work, reporting)


def _fit(
    prepared: Prepared, *, resume: bool, on_evaluation: OnEvaluation | None, start: Path | None = None
) -> tuple[Any, RunRecord]:
    """The trained model, and the record of its run, which is kept however the run ends."""
    project, adapter, work = prepared.project, prepared.adapter, prepared.work
    checkpoint = find_checkpoint(work, prepared.recipe, resume=resume)
    run = begin_run(project, adapter.name, work, resumed=checkpoint is not None)
    model = wrapped_model(prepared)
    if start is not None:  # a checkpoint, where there is one, goes before it
        load_pairs(model, start)
    if adapter.method in CHANGES_BASE and checkpoint is None:
        save_initial(model, work / INITIAL_FOLDER)
    samples = Samples(prepared.encoder, prepared.sampled, adapter.system)
    watched, interrupt = Told(on_evaluation), StopOnInterrupt()
    with tracking(project, adapter, run.name):
        trainer = make_trainer(prepared, model, work, run.name)
        tell_plan(trainer, adapter.name, *map(len, prepared.datasets))
        log.info(
            "%s: %d trainable parameters, base %s at %s",
            *(adapter.name, model.num_parameters(only_trainable=True), prepared.base.name, prepared.weights.label),
        )
        progress = Progress.install(trainer, adapter.name)
        kept = [KeptEncoder(model, checkpoint)] if adapter.method == P_TUNING else []
        for callback in (*kept, interrupt, watched, samples, TimeTold(adapter.name)):
            trainer.add_callback(callback)
        begun, status, result = time.monotonic(), FAILED, {}
        try:
            with interrupt, progress:
                outcome = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
            result = {key: float(value) for key, value in outcome.metrics.items()}
            early = trainer.state.global_step < trainer.state.max_steps
            status = INTERRUPTED if interrupt.requested else EARLY if early else FINISHED
        except KeyboardInterrupt:
            status = INTERRUPTED
            raise
        finally:
            record = replace(
                _record(prepared),
                run=run.name,
                status=STOPPED if watched.raised else status,
                started=run.started,
                seconds=round(run.seconds + time.monotonic() - begun, 3),
                losses=curve(trainer.state.log_history),
                kept_step=trainer.state.best_global_step if adapter.keeps_best else None,
                samples=[*run.samples, *samples.taken],
                result=result,
            )
            keep_run(project, record)
    if interrupt.requested:
        same = " and the same --set" if prepared.settings else ""
        raise KeyboardInterrupt(f"at step {trainer.state.global_step}; go on with --resume{same}")
    return model, record


def _record(prepared: Prepared) -> RunRecord:
    """What is known of a run before it has begun."""
    return RunRecord(
        adapter=prepared.adapter.name,
        base=base_label(prepared.project, prepared.base),
        family=prepared.base.family,
        base_precision=prepared.weights.precision,
        quantization=prepared.deployed,
        blocks=prepared.weights.digest,
        system=prepared.adapter.system,
        template=prepared.encoder.facts.digest,
        reasoning=prepared.encoder.reasoning,
        hyperparameters=hyperparameters(prepared.adapter),
        data=prepared.data,
        settings=dict(prepared.settings),
        losses=[],
        result={},
    )


def _folded(prepared: Prepared, model: Any) -> str | None:
    """The digest of the blocks that a merged training has ended with."""
    if prepared.folding is None:
        return None
    try:
        with stage(f"taking down the blocks of {prepared.adapter.name}"):
            return prepared.folding.digest(trained_pairs(model))
    except InputError as error:  # it diverged: kept as any other adapter, and exports refuse it
        log.warning("%s: %s", error.problem, error.hint)
        return NO_BLOCKS


def _publish(prepared: Prepared, model: Any, record: RunRecord) -> Path:
    """The adapter folder, whole; checkpoints go."""
    with publish(prepared.folder, is_ours=is_adapter_folder) as temporary:
        model.peft_config[ADAPTER].base_model_name_or_path = loading_name(prepared.base)
        initial = prepared.work / INITIAL_FOLDER if prepared.adapter.method in CHANGES_BASE else None
        save_adapter(model, temporary, initial)
        record.save(temporary)
        plot_losses(record, temporary / PLOT_FILE)
        write_card(temporary, record, prepared.base, task=prepared.project.task)
    shutil.rmtree(prepared.work, ignore_errors=True)
    return prepared.folder
