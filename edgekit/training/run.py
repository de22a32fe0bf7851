"""Training one adapter with transformers' Trainer: prepare, fit, publish."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import transformers

from edgekit.bases.resolve import base_label, loading_name, project_base
from edgekit.bases.torch_model import load_base
from edgekit.bases.weights import Weights, deployed_weights, training_weights, with_blocks
from edgekit.data import Row, data_digest, load_rows
from edgekit.encoding.completions import default_reasoning
from edgekit.encoding.encoder import IGNORED, Encoded, Encoder
from edgekit.encoding.images import RowImages, let_see, row_images
from edgekit.project import Adapter, Project
from edgekit.project.folders import adapter_folder, is_adapter_folder
from edgekit.training.card import write_card
from edgekit.training.engine_fit import layers_left_out
from edgekit.training.interrupt import StopOnInterrupt
from edgekit.training.lora import CHANGES_BASE, wrap
from edgekit.training.preflight import check_train
from edgekit.training.progress import Progress
from edgekit.training.record import PLOT_FILE, RunRecord, plot_losses
from edgekit.training.trainer import adapter_trainer, uses_checkpointing
from edgekit_exporters.base import Base
from edgekit_runtime.engines import last_place
from edgekit_runtime.errors import InputError
from edgekit_runtime.files.atomic import publish
from edgekit_runtime.files.system_errors import FULL, errno_of
from edgekit_runtime.prompts.reasoning import KEEP, knows_reasoning

log = logging.getLogger(__name__)

WORK_FOLDER = ".edgekit"
RECIPE_FILE = "recipe.json"
INITIAL_FOLDER = "initial"
WRITING = ("PytorchStreamWriter", "inline_container")  # torch's file writer, and its source when a file ends short
LOSS_EVAL_ROWS = 32  # rows of the evaluation set that the loss is followed on during training


def train(project: Project, name: str | None = None, *, resume: bool = False) -> Path:
    """Train the adapter ``name`` of ``project`` (the only one when None) and return its PEFT folder.

    The folder also gets run.json and loss.png.  It replaces an earlier one only when training has finished.

    Args:
        project: a loaded project file.
        name: adapter to train.
        resume: go on from the last checkpoint of a run that was interrupted.

    Raises:
        InputError: bad data or base, or nothing to resume.
        UsageError: settings that don't fit together.
        KeyboardInterrupt: after Ctrl-C, when the checkpoint is written.
    """
    adapter = project.adapter(name)
    check_train(project, [adapter.name])
    prepared = _prepare(project, adapter)
    with _full_disk_told(prepared.work):
        return _publish(prepared, _fit(prepared, resume=resume))


@dataclass(frozen=True)
class _Prepared:
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

    @property
    def work(self) -> Path:
        """Folder of checkpoints."""
        return self.project.folder / WORK_FOLDER / "train" / self.adapter.name

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


@dataclass(frozen=True)
class _Fitted:
    """A trained model, with what the Trainer has logged and measured."""

    model: Any
    losses: list[dict[str, float]]
    result: dict[str, float]


def _prepare(project: Project, adapter: Adapter) -> _Prepared:
    files = project.data_for(adapter.name)
    train_rows, eval_rows = load_rows(files.train), load_rows(files.eval)
    base = project_base(project)
    limit = _max_length(adapter, base)
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
    }
    return _Prepared(
        project, adapter, base, weights, deployed.quantization, images, encoder, invocation, datasets, data, left_out
    )


def _fit(prepared: _Prepared, *, resume: bool) -> _Fitted:
    adapter, base, work = prepared.adapter, prepared.base, prepared.work
    checkpoint = _checkpoint(work, prepared.recipe, resume=resume)
    transformers.set_seed(adapter.seed)
    model = wrap(
        let_see(load_base(base, prepared.weights), prepared.images),
        adapter,
        prepared.weights.precision,
        checkpointing=uses_checkpointing(),
        invocation=prepared.invocation,
        left_out=prepared.left_out,
        reads_images=prepared.base.vision is not None,
    )
    # The folder for now: PEFT looks for its config with each checkpoint, and asks the hub for anything else.
    model.peft_config["default"].base_model_name_or_path = str(base.folder)
    if adapter.method in CHANGES_BASE and checkpoint is None:
        _save_initial(model, work / INITIAL_FOLDER)
    trainer = adapter_trainer(model, prepared.encoder, prepared.datasets, adapter, work)
    log.info(
        "%s: %d rows, %d trainable parameters, base %s at %s",
        *(adapter.name, prepared.data["train_rows"], model.num_parameters(only_trainable=True), base.name),
        prepared.weights.label,
    )
    progress = Progress.install(trainer, adapter.name)
    interrupt = StopOnInterrupt()
    trainer.add_callback(interrupt)
    with interrupt, progress:
        outcome = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if interrupt.requested:
        raise KeyboardInterrupt(f"at step {trainer.state.global_step}; go on with --resume")
    losses = [
        {key: float(value) for key, value in entry.items() if key in ("step", "epoch", "loss", "eval_loss")}
        for entry in trainer.state.log_history
        if "loss" in entry or "eval_loss" in entry
    ]
    return _Fitted(model, losses, {key: float(value) for key, value in outcome.metrics.items()})


def _publish(prepared: _Prepared, fitted: _Fitted) -> Path:
    """The adapter folder, whole; checkpoints go."""
    project, adapter, base, encoder = prepared.project, prepared.adapter, prepared.base, prepared.encoder
    label = base_label(project, base)
    record = RunRecord(
        adapter=adapter.name,
        base=label,
        family=base.family,
        base_precision=prepared.weights.precision,
        quantization=prepared.deployed,
        blocks=prepared.weights.digest,
        system=adapter.system,
        template=encoder.facts.digest,
        reasoning=encoder.reasoning,
        hyperparameters=_hyperparameters(adapter),
        data=prepared.data,
        losses=fitted.losses,
        result=fitted.result,
    )
    folder = adapter_folder(project, adapter)
    with publish(folder, is_ours=is_adapter_folder) as temporary:
        fitted.model.peft_config["default"].base_model_name_or_path = loading_name(base)
        initial = prepared.work / INITIAL_FOLDER if adapter.method in CHANGES_BASE else None
        _save_adapter(fitted.model, temporary, initial)
        record.save(temporary)
        plot_losses(fitted.losses, f"{adapter.name} on {label}", temporary / PLOT_FILE)
        write_card(temporary, record, base, task=project.task)
    shutil.rmtree(prepared.work, ignore_errors=True)
    return folder


def _hyperparameters(adapter: Adapter) -> dict[str, Any]:
    settings = asdict(adapter)
    for key in ("name", "path", "data", "version", "schema", "generation"):
        settings.pop(key, None)
    return settings | {"alpha": adapter.lora_alpha}


def _tell_of_reasoning(adapter: Adapter, encoder: Encoder) -> None:
    if adapter.reasoning is None and (encoder.reasoning == KEEP or knows_reasoning(encoder.template)):
        found = "some training rows have it" if encoder.reasoning == KEEP else "no training row has any"
        log.info("reasoning: %s, as %s (edgekit.yaml can say otherwise)", encoder.reasoning, found)


def _examples(encoder: Encoder, row: Row, adapter: Adapter, limit: int, invocation: list[int]) -> list[Encoded]:
    """What is learnt of a row; an activated LoRA works from one place of an example, so its turns share none."""
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


def _max_length(adapter: Adapter, base: Base) -> int:
    context = transformers.AutoConfig.from_pretrained(base.folder, trust_remote_code=False).max_position_embeddings
    if adapter.max_length and adapter.max_length > context:
        raise InputError(f"max_length {adapter.max_length} is more than the base's context of {context}", "lower it")
    return int(adapter.max_length or context)


@contextlib.contextmanager
def _full_disk_told(work: Path) -> Iterator[None]:
    """Say that the work isn't lost; what torch says tells neither what went wrong with a file nor where."""
    try:
        yield
    except Exception as error:
        refusal = error.__context__ if isinstance(error, InputError) else error  # what publishing makes one of
        is_full = isinstance(refusal, Exception) and errno_of(refusal) in FULL
        if not is_full and not (isinstance(error, RuntimeError) and any(sign in str(error) for sign in WRITING)):
            raise
        place = getattr(error, "filename", None) or work
        problem = f"what is trained can't be written to {place}{' (the disk is full)' if is_full else ''}"
        raise InputError(problem, "free some space, then go on with --resume, or anew where that finds none") from error


def _checkpoint(work: Path, recipe: dict[str, Any], *, resume: bool) -> Path | None:
    """The checkpoint to go on from; a fresh start clears what an earlier run left."""
    note = work / RECIPE_FILE
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True, default=str).encode()).hexdigest()
    whole = (state.parent for state in work.glob("checkpoint-*/trainer_state.json"))  # the Trainer writes it late
    found = sorted(whole, key=lambda path: int(path.name.rpartition("-")[2]))
    if resume:
        if not found:
            raise InputError(f"there is no interrupted training in {work}", "start without --resume")
        if not note.exists() or note.read_text() != digest:
            raise InputError(
                "the settings or data have changed since that training was interrupted",
                "start without --resume, or put them back",
            )
        return found[-1]
    if found:
        log.warning("starting over; the interrupted training at %s is dropped", found[-1].name)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    note.write_text(digest)
    return None


def _save_initial(model: Any, folder: Path) -> None:
    """Keep the adapter as initialised: the trained one is saved as the difference to it (see PEFT's PiSSA guide)."""
    config = model.peft_config["default"]
    init, config.init_lora_weights = config.init_lora_weights, True
    model.save_pretrained(str(folder))
    config.init_lora_weights = init


def _save_adapter(model: Any, folder: Path, initial: Path | None) -> None:
    options: dict[str, Any] = {"save_embedding_layers": False}  # never trained; asking PEFT to look needs the network
    if initial is not None:
        options["path_initial_model_for_weight_conversion"] = str(initial)
    model.save_pretrained(str(folder), **options)
