"""Training one adapter with transformers' Trainer: prepare, fit, publish."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import transformers

from edgekit.bases.probe.window import exact_context
from edgekit.bases.resolve import base_label, loading_name, project_base
from edgekit.bases.torch_model import load_base
from edgekit.bases.weights import GGUF, Weights, deployed_weights, training_weights, with_blocks
from edgekit.data import Row, data_digest, load_rows
from edgekit.data.holdout import SEED, SHARE
from edgekit.encoding.completions import default_reasoning
from edgekit.encoding.encoder import IGNORED, Encoded, Encoder
from edgekit.encoding.images import RowImages, let_see, row_images
from edgekit.project import PREFERENCE, Adapter, Project, with_settings
from edgekit.project.folders import adapter_folder, is_adapter_folder, told
from edgekit.training.card import write_card
from edgekit.training.checkpoints import find_checkpoint, full_disk_told, save_adapter, save_initial, work_folder
from edgekit.training.engine_fit import layers_left_out
from edgekit.training.evaluations import OnEvaluation, Told
from edgekit.training.history import EARLY, FAILED, FINISHED, INTERRUPTED, STOPPED, begin_run, keep_run
from edgekit.training.interrupt import StopOnInterrupt
from edgekit.training.lora import CHANGES_BASE, wrap
from edgekit.training.outlook import TimeTold, tell_plan
from edgekit.training.preference import preference_example, preference_trainer
from edgekit.training.preflight import check_train
from edgekit.training.progress import Progress
from edgekit.training.record import PLOT_FILE, RunRecord, curve, plot_losses
from edgekit.training.samples import Samples
from edgekit.training.targets import check_targets_on
from edgekit.training.trackers import tracking, tracking_arguments
from edgekit.training.trainer import adapter_trainer, uses_checkpointing
from edgekit_exporters.base import Base
from edgekit_runtime.engines import last_place
from edgekit_runtime.errors import InputError
from edgekit_runtime.files.atomic import publish
from edgekit_runtime.prompts.reasoning import KEEP, knows_reasoning

log = logging.getLogger(__name__)

INITIAL_FOLDER = "initial"
LOSS_EVAL_ROWS = 32  # rows of the evaluation set that the loss is followed on during training


def train(
    project: Project,
    name: str | None = None,
    *,
    resume: bool = False,
    settings: Mapping[str, Any] | None = None,
    output: Path | None = None,
    on_evaluation: OnEvaluation | None = None,
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

    Raises:
        InputError: bad data or base, or nothing to resume.
        UsageError: settings that don't fit together, or that the project file couldn't have.
        KeyboardInterrupt: after Ctrl-C, when the checkpoint is written.
    """
    name = project.adapter(name).name
    project = with_settings(project, [name], settings or {})
    check_train(project, [name])
    prepared = prepare(project, project.adapter(name), settings or {}, output)
    with full_disk_told(prepared.work):
        model, record = _fit(prepared, resume=resume, on_evaluation=on_evaluation)
        return _publish(prepared, model, record)


@dataclass(frozen=True)
class Prepared:
    """All that a training is made of, before any weights are loaded; ``deployed`` is the type that devices run."""

    project: Project
    adapter: Adapter
    base: Base
    weights: Weights
    deployed: str | None
    images: RowImages | None
    encoder: Encoder
    invocation: list[int]
    datasets: list[list[Encoded]]
    data: dict[str, Any]
    left_out: tuple[str, ...]
    settings: Mapping[str, Any]
    sampled: Sequence[Row]
    output: Path | None

    @property
    def folder(self) -> Path:
        """Folder of the trained adapter."""
        return self.output or adapter_folder(self.project, self.adapter)

    @property
    def work(self) -> Path:
        """Folder of checkpoints."""
        if self.output is not None:
            return self.output.with_name(f".{self.output.name}.train")
        return work_folder(self.project, self.adapter.name)

    @property
    def recipe(self) -> dict[str, Any]:
        """What an interrupted training has to have in common with the one that goes on."""
        return {
            "base": self.base.family,
            "precision": self.weights.precision,
            "quantization": self.deployed,
            "blocks": self.weights.digest,
            "template": self.encoder.facts.digest,
            "reasoning": self.encoder.reasoning,
            "hyperparameters": _hyperparameters(self.adapter),
            "data": self.data["digest"],
        }


def prepare(project: Project, adapter: Adapter, settings: Mapping[str, Any], output: Path | None = None) -> Prepared:
    """Read and encode the rows, find the base and its weights; arguments and errors as of :func:`train`."""
    files = project.data_for(adapter.name)
    train_rows, eval_rows = load_rows(files.train), load_rows(files.eval)
    base = project_base(project)
    check_targets_on(base, adapter, project.export)
    limit = _max_length(adapter, base, project.export.format)
    left_out = layers_left_out(project, adapter, base, limit)
    weights = with_blocks(project, base, training_weights(adapter, project.export, base.gguf))
    deployed = weights if weights.blocks is not None else deployed_weights(project.export, base.gguf)
    images = row_images(project, base, connector=adapter.connector)
    encoder = Encoder(base.folder, images=images, reasoning=adapter.reasoning or default_reasoning(train_rows))
    _tell_of_reasoning(adapter, encoder)
    invocation = encoder.invocation_ids(adapter.invocation) if adapter.method == "alora" else []
    datasets = [
        [example for row in rows for example in _examples(encoder, row, adapter, limit, invocation)]
        for rows in (train_rows, eval_rows[:LOSS_EVAL_ROWS])
    ]
    data = {
        "digest": data_digest([files.train, files.eval]),
        "train_rows": len(train_rows),
        "eval_rows": len(eval_rows),
        "held_out": {"share": SHARE, "seed": SEED} if files.eval.held_out else None,
    }
    if files.eval.held_out:
        log.info(
            "%s: data names no evaluation rows: %d of %d rows are held out for it (seed %d)",
            *(adapter.name, len(eval_rows), len(train_rows) + len(eval_rows), SEED),
        )
    return Prepared(
        project,
        adapter,
        base,
        weights,
        deployed.quantization,
        images,
        encoder,
        invocation,
        datasets,
        data,
        left_out,
        settings,
        [replace(row, where=told(project, row.where)) for row in eval_rows[: adapter.samples]],
        output,
    )


def wrapped_model(prepared: Prepared) -> Any:
    """The base at the weights of this training, with the adapter to be trained around it."""
    transformers.set_seed(prepared.adapter.seed)
    model = wrap(
        let_see(load_base(prepared.base, prepared.weights), prepared.images),
        prepared.adapter,
        prepared.weights.precision,
        checkpointing=uses_checkpointing(),
        invocation=prepared.invocation,
        left_out=prepared.left_out,
        reads_images=prepared.base.vision is not None,
    )
    # The folder for now: PEFT looks for its config with each checkpoint, and asks the hub for anything else.
    model.peft_config["default"].base_model_name_or_path = str(prepared.base.folder)
    return model


def make_trainer(prepared: Prepared, model: Any, work: Path, run: str) -> transformers.Trainer:
    """The Trainer of ``model``; checkpoints go to ``work``, trackers know it as ``run``."""
    reporting = tracking_arguments(prepared.project, prepared.adapter, run)
    make = preference_trainer if prepared.adapter.method == PREFERENCE else adapter_trainer
    return make(model, prepared.encoder, prepared.datasets, prepared.adapter, work, reporting)


def _fit(prepared: Prepared, *, resume: bool, on_evaluation: OnEvaluation | None) -> tuple[Any, RunRecord]:
    """The trained model, and the record of its run, which is kept however the run ends."""
    project, adapter, work = prepared.project, prepared.adapter, prepared.work
    checkpoint = find_checkpoint(work, prepared.recipe, resume=resume)
    run = begin_run(project, adapter.name, work, resumed=checkpoint is not None)
    model = wrapped_model(prepared)
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
        for callback in (interrupt, watched, samples, TimeTold(adapter.name)):
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
        hyperparameters=_hyperparameters(prepared.adapter),
        data=prepared.data,
        settings=dict(prepared.settings),
        losses=[],
        result={},
    )


def _publish(prepared: Prepared, model: Any, record: RunRecord) -> Path:
    """The adapter folder, whole; checkpoints go."""
    with publish(prepared.folder, is_ours=is_adapter_folder) as temporary:
        model.peft_config["default"].base_model_name_or_path = loading_name(prepared.base)
        initial = prepared.work / INITIAL_FOLDER if prepared.adapter.method in CHANGES_BASE else None
        save_adapter(model, temporary, initial)
        record.save(temporary)
        plot_losses(record, temporary / PLOT_FILE)
        write_card(temporary, record, prepared.base, task=prepared.project.task)
    shutil.rmtree(prepared.work, ignore_errors=True)
    return prepared.folder


def _hyperparameters(adapter: Adapter) -> dict[str, Any]:
    settings = asdict(adapter)
    for key in ("name", "path", "data", "version", "schema", "generation", "samples", "report_to"):
        settings.pop(key, None)
    return settings | {"alpha": adapter.lora_alpha}


def _tell_of_reasoning(adapter: Adapter, encoder: Encoder) -> None:
    if adapter.reasoning is None and (encoder.reasoning == KEEP or knows_reasoning(encoder.template)):
        found = "some training rows have it" if encoder.reasoning == KEEP else "no training row has any"
        log.info("reasoning: %s, as %s (edgekit.yaml can say otherwise)", encoder.reasoning, found)


def _examples(encoder: Encoder, row: Row, adapter: Adapter, limit: int, invocation: list[int]) -> list[Encoded]:
    """What is learnt of a row; an activated LoRA works from one place of an example, so its turns share none."""
    if row.rejected is not None:
        return [preference_example(encoder, row, adapter.system, limit)]
    every = adapter.loss == "all"
    examples = encoder.encode(row, adapter.system, limit, every_turn=every, join=not invocation)
    return [_invoked(example, row, invocation) for example in examples] if invocation else examples


def _invoked(example: Encoded, row: Row, invocation: list[int]) -> Encoded:
    """The example, whose prompt an activated LoRA has to be invoked in."""
    prompt = example["input_ids"][: example["labels"].count(IGNORED)]
    if last_place(prompt, invocation) is not None:
        return example
    raise InputError(
        f"{row.where}: the prompt never has the tokens of the adapter's invocation",
        "let it begin and end where tokens do (at special tokens or lines), or leave invocation out",
    )


def _max_length(adapter: Adapter, base: Base, format: str) -> int:
    """The adapter's own, else what devices serve."""
    context = transformers.AutoConfig.from_pretrained(base.folder, trust_remote_code=False).max_position_embeddings
    if adapter.max_length and adapter.max_length > context:
        raise InputError(f"max_length {adapter.max_length} is more than the base's context of {context}", "lower it")
    longest = exact_context(base) if format == GGUF and not adapter.max_length else None
    return int(adapter.max_length or min(context, longest or context))
