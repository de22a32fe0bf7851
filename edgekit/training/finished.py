"""What training has left of an adapter, and what it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgekit.bases.folding import Folding, pairs_of
from edgekit.bases.weights import GGUF, ONNX, TORCH, Weights, recorded_weights, training_weights, with_blocks
from edgekit.project import Adapter, Project
from edgekit.project.folders import adapter_folder, trained_folder
from edgekit.project.run_record import read_record
from edgekit_exporters.base import Base
from edgekit_exporters.gguf.adapter import AdapterSource
from edgekit_exporters.gguf.blocks import file_blocks_digest
from edgekit_exporters.gguf.connector import trained_connector, with_connector
from edgekit_exporters.hf.templates import template_facts
from edgekit_exporters.peft.files import find_adapter
from edgekit_exporters.peft.intake import take_in
from edgekit_exporters.progress import stage
from edgekit_runtime.errors import InputError
from edgekit_runtime.prompts.reasoning import template_arguments
from edgekit_runtime.prompts.template import ChatTemplate

CHANGES_BLOCKS = {
    TORCH: "the base",
    GGUF: "export.imatrix and export.tensor_types",
    ONNX: "this base by this version on this machine",
}


def trained_reasoning(project: Project, adapter: Adapter) -> str | None:
    """``keep`` or ``drop`` as in training; of an imported adapter what the project says, None where it says nothing.

    Raises:
        InputError: the project says otherwise than training did.
    """
    record = run_record(project, adapter)
    if record is None or "reasoning" not in record:
        return adapter.reasoning
    trained: str | None = record["reasoning"]
    if adapter.reasoning not in (None, trained):
        raise InputError(
            f"adapter {adapter.name} was trained with reasoning: {trained}, and edgekit.yaml says {adapter.reasoning}",
            "put it back as it was, or train it again",
        )
    return trained


def adapter_source(project: Project, adapter: Adapter, base: Base) -> AdapterSource:
    """The adapter as exporters take it.

    Raises:
        InputError: as :func:`trained_folder`, or ``base`` has no chat template.
    """
    template = ChatTemplate.of(template_facts(base.folder))
    return AdapterSource(
        name=adapter.name,
        version=adapter.version,
        folder=trained_folder(project, adapter),
        system=adapter.system,
        generation=adapter.generation.as_dict(),
        output_schema=adapter.schema,
        template_arguments=template_arguments(template, trained_reasoning(project, adapter)) or None,
    )


def shipped_base(project: Project, adapters: Sequence[Adapter], base: Base) -> Base:
    """The base that devices get with these adapters: another one, when an adapter has trained its connector.

    Raises:
        InputError: such an adapter among others, or as :func:`trained_folder`.
    """
    trained = {each.name: trained_connector(trained_folder(project, each), base) for each in adapters}
    own = {name: weight for name, weight in trained.items() if weight is not None}
    if own and len(trained) > 1:
        raise InputError(
            f"{' and '.join(own)} has trained the connector, and all adapters of a bundle share one",
            f"export it alone, `edgekit export {next(iter(own))}`, and the others by their names",
        )
    return with_connector(base, next(iter(own.values()))) if own else base


def run_record(project: Project, adapter: Adapter) -> dict[str, Any] | None:
    """What training has written down; a GGUF has no folder of its own where that could lie."""
    folder = adapter_folder(project, adapter)
    if adapter.path is None:
        return read_record(folder)
    files = find_adapter(folder)
    return None if files.is_gguf else read_record(files.folder)


def trained_weights(project: Project, adapter: Adapter, base: Base) -> Weights:
    """The base's weights in training, by the run record where there is one; an imported adapter's are float32.

    Raises:
        InputError: the adapter was trained for another base, or on blocks that the project makes no longer.
    """
    record = run_record(project, adapter)
    if record is None:
        if adapter.path is not None:
            return Weights(TORCH, "fp32")
        return with_blocks(project, base, training_weights(adapter, project.export, base.gguf))
    if record["family"] != base.family:
        raise InputError(
            f"adapter {adapter.name} was trained for the base {record['family']}, not for {base.family}",
            f"give {record['base']} with --base, or train it again",
        )
    _check_template(adapter, record, base)
    weights = with_blocks(project, base, recorded_weights(record["base_precision"], record["quantization"]))
    if weights.digest != record["blocks"]:
        changed = CHANGES_BLOCKS[weights.format]
        raise InputError(
            f"adapter {adapter.name} was trained on other blocks than are made now from {changed}",
            "put these back as they were, or train it again",
        )
    return weights


def trained_folding(project: Project, adapter: Adapter, base: Base) -> Folding | None:
    """How the layers of an adapter were folded into blocks in training; None for one that was not trained merged.

    Raises:
        InputError: as :func:`trained_weights`.
    """
    if folded_digest(project, adapter) is None:
        return None
    return Folding(project, base, trained_weights(project, adapter, base))


def write_folded(project: Project, adapter: Adapter, base: Base, destination: Path) -> None:
    """Write the GGUF of a merged adapter: the base's blocks, and those that its training has ended with.

    What was written is read again and held against what training has taken down.

    Raises:
        InputError: it holds other blocks; as :func:`trained_weights` and
            :func:`~edgekit_exporters.peft.intake.take_in`.
    """
    folding = trained_folding(project, adapter, base)
    assert folding is not None  # callers ask first
    pairs = pairs_of(take_in(trained_folder(project, adapter), base))
    with stage(f"folding {adapter.name} into the base's blocks"):
        folding.write(pairs, destination)
        found = file_blocks_digest(destination, folding.tensors(pairs))
    if found != folded_digest(project, adapter):
        raise InputError(
            f"adapter {adapter.name} would ship other blocks than its training has ended with: its files, the base's"
            " float weights or llama.cpp's quantizer have changed since",
            "put back what changed, or train it again",
        )


def folded_digest(project: Project, adapter: Adapter) -> str | None:
    """sha256 of the tensors with a merged adapter in their blocks, as training ended with them; None for any other."""
    record = run_record(project, adapter)
    return None if record is None else record.get("folded")


def _check_template(adapter: Adapter, record: dict[str, Any], base: Base) -> None:
    digest = template_facts(base.folder).digest
    if record.get("template", digest) != digest:
        raise InputError(
            f"adapter {adapter.name} was trained with another chat template than {base.name} has now",
            "put chat_template: back as it was, or train it again",
        )
