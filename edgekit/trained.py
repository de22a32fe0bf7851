"""What training has left of an adapter, and what it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.deployed import blocks_digest, trained_blocks
from edgekit.folders import adapter_folder, trained_folder
from edgekit.project import ONNX_PRECISIONS, Adapter, Project
from edgekit.training import base_precision
from edgekit.training.record import read_record
from edgekit_exporters.adapter_files import find_adapter
from edgekit_exporters.base import Base
from edgekit_exporters.connector import trained_connector, with_connector
from edgekit_exporters.gguf_adapter import AdapterSource
from edgekit_exporters.templates import template_facts
from edgekit_runtime.errors import InputError
from edgekit_runtime.reasoning import template_arguments
from edgekit_runtime.template import ChatTemplate

__all__ = ["TrainedAt", "adapter_source", "shipped_base", "trained_at", "trained_folder"]

CHANGES_BLOCKS = {
    "gguf": "export.imatrix and export.tensor_types",
    **dict.fromkeys(ONNX_PRECISIONS, "this base by this version on this machine"),
}


@dataclass(frozen=True)
class TrainedAt:
    """``precision`` of the base in training; on blocks that devices run also these and their ``quantization``;
    ``reasoning`` as :func:`trained_reasoning` has it.
    """

    precision: str
    quantization: str | None
    blocks: Path | None
    reasoning: str | None = None

    @property
    def label(self) -> str:
        """For tables: the quantisation where there is one."""
        return self.quantization if self.blocks and self.quantization else self.precision


def trained_reasoning(project: Project, adapter: Adapter) -> str | None:
    """``keep`` or ``drop`` as in training; of an imported adapter what the project says, None where it says nothing.

    Raises:
        InputError: the project says otherwise than training did.
    """
    record = _record(project, adapter)
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


def _record(project: Project, adapter: Adapter) -> dict[str, Any] | None:
    """What training has written down; a GGUF has no folder of its own where that could lie."""
    folder = adapter_folder(project, adapter)
    if adapter.path is None:
        return read_record(folder)
    files = find_adapter(folder)
    return None if files.is_gguf else read_record(files.folder)


def trained_at(project: Project, adapter: Adapter, base: Base) -> TrainedAt:
    """The base as it was in training, by the run record where there is one; an imported adapter's is float.

    Raises:
        InputError: the adapter was trained for another base, or on blocks that the project makes no longer.
    """
    record = _record(project, adapter)
    if record is None:
        precision, quantization = ("fp32", None) if adapter.path else base_precision(project, adapter, base)
    else:
        precision, quantization = record["base_precision"], record["quantization"]
        if record["family"] != base.family:
            raise InputError(
                f"adapter {adapter.name} was trained for the base {record['family']}, not for {base.family}",
                f"give {record['base']} with --base, or train it again",
            )
        _check_template(adapter, record, base)
    blocks = trained_blocks(project, base, precision, quantization)
    if blocks is not None and record is not None and record["blocks"] != blocks_digest(blocks):
        raise InputError(
            f"adapter {adapter.name} was trained on other blocks than are made now from {CHANGES_BLOCKS[precision]}",
            "put these back as they were, or train it again",
        )
    return TrainedAt(precision, quantization, blocks, trained_reasoning(project, adapter))


def _check_template(adapter: Adapter, record: dict[str, Any], base: Base) -> None:
    digest = template_facts(base.folder).digest
    if record.get("template", digest) != digest:
        raise InputError(
            f"adapter {adapter.name} was trained with another chat template than {base.name} has now",
            "put chat_template: back as it was, or train it again",
        )
