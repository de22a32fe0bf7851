"""All that a training is made of before weights are loaded: rows as token ids, the base, its weights, the layers."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import transformers

from edgekit.bases.folding import Folding
from edgekit.bases.probe.window import exact_context
from edgekit.bases.resolve import project_base
from edgekit.bases.weights import GGUF, Weights, deployed_weights, training_weights, with_blocks
from edgekit.data import Row, data_digest, load_rows
from edgekit.data.holdout import SEED, SHARE
from edgekit.encoding.completions import default_reasoning
from edgekit.encoding.encoder import IGNORED, Encoded, Encoder
from edgekit.encoding.images import RowImages, row_images
from edgekit.project import VIRTUAL, Adapter, Project
from edgekit.project.folders import adapter_folder, told
from edgekit.training.checkpoints import work_folder
from edgekit.training.engine_fit import layers_left_out
from edgekit.training.preference import preference_example
from edgekit.training.targets import check_targets_on
from edgekit_exporters.base import Base
from edgekit_runtime.engines import last_place
from edgekit_runtime.errors import InputError
from edgekit_runtime.prompts.reasoning import KEEP, knows_reasoning

log = logging.getLogger(__name__)

LOSS_EVAL_ROWS = 32  # rows of the evaluation set that the loss is followed on during training


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

    @cached_property
    def folding(self) -> Folding | None:
        """How layers are folded into blocks, for an adapter that is trained merged."""
        return Folding(self.project, self.base, self.weights) if self.adapter.merged else None

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
            "hyperparameters": hyperparameters(self.adapter),
            "data": self.data["digest"],
        }


def prepare(project: Project, adapter: Adapter, settings: Mapping[str, Any], output: Path | None = None) -> Prepared:
    """Read and encode the rows, find the base and its weights.

    Arguments and errors are those of :func:`~edgekit.training.run.train`.
    """
    files = project.data_for(adapter.name)
    train_rows, eval_rows = load_rows(files.train), load_rows(files.eval)
    base = project_base(project)
    if adapter.method not in VIRTUAL:
        check_targets_on(base, adapter, project.export)
    limit = row_limit(adapter, base, project.export.format)
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


def hyperparameters(adapter: Adapter) -> dict[str, Any]:
    """The settings that decide what is learnt."""
    settings = asdict(adapter)
    for key in ("name", "path", "combined", "data", "version", "schema", "generation", "samples", "report_to"):
        settings.pop(key, None)
    if adapter.method in VIRTUAL:
        for key in ("rank", "targets"):
            settings.pop(key)
        return settings | {"learning_rate": adapter.highest_rate, "virtual_tokens": adapter.token_count}
    return settings | {"learning_rate": adapter.highest_rate, "alpha": adapter.lora_alpha}


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


def row_limit(adapter: Adapter, base: Base, format: str) -> int:
    """Most tokens of a training row: the adapter's own, else what devices serve.

    Raises:
        InputError: the adapter's own is more than the base's context.
    """
    context = transformers.AutoConfig.from_pretrained(base.folder, trust_remote_code=False).max_position_embeddings
    virtual = adapter.token_count
    if adapter.max_length and adapter.max_length + virtual > context:
        own = f" and {virtual} virtual tokens are" if virtual else " is"
        raise InputError(f"max_length {adapter.max_length}{own} more than the base's context of {context}", "lower it")
    longest = exact_context(base) if format == GGUF and not adapter.max_length else None
    return int(adapter.max_length or min(context, longest or context) - virtual)
