"""Training one adapter with transformers' Trainer."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers

from edgekit.bases.resolve import base_label, loading_name, project_base
from edgekit.bases.torch_model import device, fast_bfloat16, load_base
from edgekit.bases.weights import deployed_weights, training_weights, with_blocks
from edgekit.data import Row, data_digest, load_rows
from edgekit.data.completions import default_reasoning
from edgekit.data.encoding import IGNORED, Encoded, Encoder
from edgekit.data.image_embeddings import let_see, row_images
from edgekit.preflight import check_train
from edgekit.project import Adapter, Project
from edgekit.project.folders import adapter_folder, is_adapter_folder
from edgekit.training.card import write_card
from edgekit.training.interrupt import StopOnInterrupt
from edgekit.training.lora import CHANGES_BASE, wrap
from edgekit.training.progress import Progress
from edgekit.training.record import PLOT_FILE, RunRecord, plot_losses
from edgekit_exporters.base import Base
from edgekit_exporters.peft.intake import CONNECTOR
from edgekit_runtime.engines import last_place
from edgekit_runtime.errors import InputError
from edgekit_runtime.publish import publish
from edgekit_runtime.reasoning import KEEP, knows_reasoning

log = logging.getLogger(__name__)

WORK_FOLDER = ".edgekit"
RECIPE_FILE = "recipe.json"
MAX_CHECKPOINTS = 2
SAVES_PER_RUN = 10
EVALUATIONS_PER_RUN = 3
LOSS_EVAL_ROWS = 32  # rows of the evaluation set that the loss is followed on during training
CONNECTOR_RATE = 0.1  # of the adapter's: it is trained already, and moves as a whole matrix
LORAPLUS_RATIO = 16  # lr(B) / lr(A), as recommended in the LoRA+ paper (arXiv 2402.12354)


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
    files = project.data_for(adapter.name)
    train_rows, eval_rows = load_rows(files.train), load_rows(files.eval)
    base = project_base(project)
    deployed = deployed_weights(project.export, base.gguf)
    weights = with_blocks(project, base, training_weights(adapter, project.export, base.gguf))
    quantization = deployed.quantization if weights.blocks is None else weights.quantization
    images = row_images(project, base, connector=adapter.connector)
    encoder = Encoder(base.folder, images=images, reasoning=adapter.reasoning or default_reasoning(train_rows))
    _tell_of_reasoning(adapter, encoder)
    limit = _max_length(adapter, base)
    invocation = encoder.invocation_ids(adapter.invocation) if adapter.method == "alora" else []
    datasets = [
        [example for row in rows for example in _examples(encoder, row, adapter, limit, invocation)]
        for rows in (train_rows, eval_rows[:LOSS_EVAL_ROWS])
    ]

    recipe = {
        "base": base.family,
        "precision": weights.precision,
        "quantization": quantization,
        "blocks": weights.digest,
        "template": encoder.facts.digest,
        "reasoning": encoder.reasoning,
        "hyperparameters": _hyperparameters(adapter),
        "data": data_digest([files.train, files.eval]),
    }
    work = project.folder / WORK_FOLDER / "train" / adapter.name
    checkpoint = _checkpoint(work, recipe, resume=resume)

    transformers.set_seed(adapter.seed)
    model = wrap(
        let_see(load_base(base, weights), images),
        adapter,
        weights.precision,
        checkpointing=_checkpointing(),
        invocation=invocation,
    )
    # The folder for now: PEFT looks for its config with each checkpoint, and asks the hub for anything else.
    model.peft_config["default"].base_model_name_or_path = str(base.folder)
    initial = work / "initial"
    if adapter.method in CHANGES_BASE and checkpoint is None:
        _save_initial(model, initial)
    trainer = _trainer(model, encoder, datasets, adapter, work)
    log.info(
        "%s: %d rows, %d trainable parameters, base %s at %s",
        *(adapter.name, len(train_rows), model.num_parameters(only_trainable=True), base.name),
        weights.label,
    )
    progress = Progress.install(trainer, adapter.name)
    interrupt = StopOnInterrupt()
    trainer.add_callback(interrupt)
    with interrupt, progress, _full_disk_told(work):
        outcome = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if interrupt.requested:
        raise KeyboardInterrupt(f"at step {trainer.state.global_step}; go on with --resume")

    label = base_label(project, base)
    losses = [
        {key: float(value) for key, value in entry.items() if key in ("step", "epoch", "loss", "eval_loss")}
        for entry in trainer.state.log_history
        if "loss" in entry or "eval_loss" in entry
    ]
    record = RunRecord(
        adapter=adapter.name,
        base=label,
        family=base.family,
        base_precision=weights.precision,
        quantization=quantization,
        blocks=None if recipe["blocks"] is None else str(recipe["blocks"]),
        system=adapter.system,
        template=encoder.facts.digest,
        reasoning=encoder.reasoning,
        hyperparameters=_hyperparameters(adapter),
        data={"digest": recipe["data"], "train_rows": len(train_rows), "eval_rows": len(eval_rows)},
        losses=losses,
        result={key: float(value) for key, value in outcome.metrics.items()},
    )
    folder = adapter_folder(project, adapter)
    with publish(folder, is_ours=is_adapter_folder) as temporary:
        model.peft_config["default"].base_model_name_or_path = loading_name(base)
        _save_adapter(model, temporary, initial if adapter.method in CHANGES_BASE else None)
        record.save(temporary)
        plot_losses(losses, f"{adapter.name} on {label}", temporary / PLOT_FILE)
        write_card(temporary, record, base, task=project.task)
    shutil.rmtree(work, ignore_errors=True)
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
    """What torch says tells neither what went wrong with a file nor where."""
    try:
        yield
    except RuntimeError as error:
        if "PytorchStreamWriter" not in str(error):
            raise
        problem = f"the checkpoint can't be written to {work}"
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


def _checkpointing() -> bool:
    """Recomputing activations pays on a GPU, whose memory is scarce, and only costs time on a CPU."""
    return device().type == "cuda"


def _trainer(
    model: Any, encoder: Encoder, datasets: Sequence[list[Encoded]], adapter: Adapter, work: Path
) -> transformers.Trainer:
    train_set, eval_set = datasets
    on_gpu = device().type == "cuda"
    steps = adapter.max_steps or max(
        1, round(adapter.epochs * len(train_set) / (adapter.batch_size * adapter.gradient_accumulation))
    )
    arguments = transformers.TrainingArguments(
        output_dir=str(work),
        max_steps=adapter.max_steps or -1,
        num_train_epochs=adapter.epochs,
        per_device_train_batch_size=adapter.batch_size,
        per_device_eval_batch_size=adapter.batch_size,
        gradient_accumulation_steps=adapter.gradient_accumulation,
        gradient_checkpointing=_checkpointing(),
        learning_rate=adapter.learning_rate,
        warmup_steps=adapter.warmup_ratio,  # below 1 it is a share of all steps
        lr_scheduler_type=adapter.scheduler,
        optim="paged_adamw_8bit" if on_gpu else "adamw_torch",
        bf16=fast_bfloat16(),
        use_cpu=not on_gpu,
        train_sampling_strategy="group_by_length",  # batches of like lengths waste no work on padding
        eval_strategy="steps",
        eval_steps=max(1, -(-steps // EVALUATIONS_PER_RUN)),
        save_strategy="steps",
        save_steps=max(1, -(-steps // SAVES_PER_RUN)),
        save_total_limit=MAX_CHECKPOINTS,
        logging_steps=max(1, steps // 50),
        seed=adapter.seed,
        report_to=[],
        remove_unused_columns=False,
        dataloader_pin_memory=on_gpu,
        label_names=["labels"],
    )
    collator = transformers.DataCollatorForSeq2Seq(encoder.tokenizer, label_pad_token_id=IGNORED, pad_to_multiple_of=8)
    optimizer = None
    if adapter.method == "lora+":
        from peft.optimizers import create_loraplus_optimizer

        optimizer = create_loraplus_optimizer(
            model, torch.optim.AdamW, lr=adapter.learning_rate, loraplus_lr_ratio=LORAPLUS_RATIO
        )
    if adapter.connector:
        optimizer = torch.optim.AdamW(_with_connector(model, adapter.learning_rate), weight_decay=0.0)
    return transformers.Trainer(
        model=model,
        args=arguments,
        train_dataset=train_set,
        eval_dataset=eval_set,
        data_collator=collator,
        optimizers=(optimizer, None),
    )


def _with_connector(model: Any, rate: float) -> list[dict[str, Any]]:
    trained = [(CONNECTOR in name, each) for name, each in model.named_parameters() if each.requires_grad]
    return [
        {"params": [each for connector, each in trained if connector == wanted], "lr": rate * share}
        for wanted, share in ((False, 1.0), (True, CONNECTOR_RATE))
    ]


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
