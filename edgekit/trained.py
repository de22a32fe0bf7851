"""What training has left of an adapter, and what it was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekit.deployed import deployed_base
from edgekit.project import Adapter, Project
from edgekit.training import adapter_folder, base_precision
from edgekit.training.record import read_record
from edgekit_exporters.base import Base
from edgekit_exporters.gguf_adapter import AdapterSource
from edgekit_runtime.bundle import file_digest
from edgekit_runtime.errors import InputError


@dataclass(frozen=True)
class TrainedAt:
    """``precision`` of the base in training; with "gguf" also its ``quantization`` and the file ``gguf``."""

    precision: str
    quantization: str | None
    gguf: Path | None

    @property
    def label(self) -> str:
        """For tables: the quantisation where there is one."""
        return self.quantization if self.gguf and self.quantization else self.precision


def trained_folder(project: Project, adapter: Adapter) -> Path:
    """The adapter's PEFT folder.

    Raises:
        InputError: it has not been trained yet, or the imported folder is missing.
    """
    folder = adapter_folder(project, adapter)
    if not (folder / "adapter_config.json").exists():
        mend = (
            f"run `edgekit train {adapter.name}` first" if adapter.path is None else "correct its path in edgekit.yaml"
        )
        raise InputError(f"adapter {adapter.name} is not in {folder}", mend)
    return folder


def adapter_source(project: Project, adapter: Adapter) -> AdapterSource:
    """The adapter as exporters take it.

    Raises:
        InputError: as :func:`trained_folder`.
    """
    return AdapterSource(
        name=adapter.name,
        version=adapter.version,
        folder=trained_folder(project, adapter),
        system=adapter.system,
        generation=adapter.generation.as_dict(),
        output_schema=adapter.schema,
    )


def trained_at(project: Project, adapter: Adapter, base: Base) -> TrainedAt:
    """The base as it was in training, by the run record where there is one; an imported adapter's is float.

    Raises:
        InputError: the adapter was trained for another base, or on blocks that the project makes no longer.
    """
    record = read_record(adapter_folder(project, adapter))
    if record is None:
        precision, quantization = ("fp32", None) if adapter.path else base_precision(project, adapter, base)
    else:
        precision, quantization = record["base_precision"], record["quantization"]
        if record["family"] != base.family:
            raise InputError(
                f"adapter {adapter.name} was trained for the base {record['family']}, not for {base.family}",
                f"give --base {record['base']}, or train it again",
            )
    if precision != "gguf" or quantization is None:
        return TrainedAt(precision, quantization, None)
    gguf = deployed_base(project, base, quantization)
    if record is not None and record["blocks"] != file_digest(gguf):
        raise InputError(
            f"adapter {adapter.name} was trained on other blocks than export.imatrix and export.tensor_types make now",
            "put these settings back, or train it again",
        )
    return TrainedAt(precision, quantization, gguf)
