"""What a training run leaves behind beside the adapter: run.json and the loss plot."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from edgekit.project import AUTO, PREFERENCE, Export
from edgekit.project.run_record import RECORD_FILE, RECORD_SCHEMA
from edgekit_exporters.gguf.quantize import canonical_quantization
from edgekit_runtime.errors import UsageError
from edgekit_runtime.files.strict_json import strict_json

PLOT_FILE = "loss.png"
PACKAGES = ("edgekit", "torch", "transformers", "peft", "bitsandbytes", "accelerate", "llama-cpp-python")
_OF_PREFERENCES = ("rewards/accuracies", "rewards/margins")  # pairs told apart, and by how much
_OF_CURVE = (
    *("step", "epoch", "loss", "eval_loss", "learning_rate", "grad_norm"),
    *(prefix + key for prefix in ("", "eval_") for key in _OF_PREFERENCES),
)


@dataclass(frozen=True)
class RunRecord:
    """Everything needed to know, and to repeat, how an adapter came about.

    ``blocks`` is the sha256 of the file whose blocks it was trained on, where it was; ``folded`` that of the tensors
    with a merged adapter in their blocks; ``template`` that of chat template and special tokens.  ``settings`` are
    those of this training alone, which the project file doesn't have.  ``run`` is its name among the project's runs,
    ``status`` how it ended, ``kept_step`` the step whose state is kept.  ``samples`` are answers that were looked at in
    between.  ``trimmed`` is what `targets: auto` has left out, and what that has changed.  ``combined`` says of what
    other adapters it is made.
    """

    adapter: str
    base: str
    family: str
    base_precision: str
    quantization: str | None
    blocks: str | None
    system: str | None
    template: str
    reasoning: str | None
    hyperparameters: dict[str, Any]
    data: dict[str, Any]
    losses: list[dict[str, float]]
    result: dict[str, float]
    settings: dict[str, Any] = field(default_factory=dict)
    run: str = ""
    status: str = ""
    started: str = ""
    seconds: float = 0.0
    kept_step: int | None = None
    folded: str | None = None
    samples: list[dict[str, Any]] = field(default_factory=list)
    trimmed: dict[str, Any] | None = None
    combined: dict[str, Any] | None = None

    def text(self) -> str:
        """As a JSON document, with versions and machine."""
        document = {
            "schema": RECORD_SCHEMA,
            **asdict(self),
            "versions": versions(),
            "machine": platform.platform(),
        }
        return strict_json(document, indent=2) + "\n"

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> RunRecord:
        """The record that a run.json holds."""
        return cls(**{each.name: document[each.name] for each in fields(cls) if each.name in document})

    def save(self, folder: Path) -> None:
        """Write run.json."""
        (folder / RECORD_FILE).write_text(self.text(), encoding="utf-8")


def check_folded(name: str, record: Mapping[str, Any] | None, export: Export, wanted: str | None) -> None:
    """Refuse to export an adapter that was trained merged in any other form than the one that was trained.

    Args:
        name: of the adapter.
        record: its run.json.
        export: the settings.
        wanted: the type of the base's weights; None where nobody names one.

    Raises:
        UsageError: it is to be a separate file, or merged into blocks of another type.
    """
    if record is None or record.get("folded") is None:
        return
    said, trained = f"adapter {name} was trained merged into {record['quantization']} blocks", record["quantization"]
    if export.mode != "merged":
        raise UsageError(
            f"{said}, and beside them it is another adapter than the one that was trained",
            "export it with --mode merged, or train it without merged",
        )
    if export.format != "gguf":
        raise UsageError(f"{said}, which an ONNX base has none of", "export it with --format gguf")
    if wanted is not None and (wanted == AUTO or canonical_quantization(wanted) != trained):
        hint = f"export it with --quantize {trained}, or train it for that"
        raise UsageError(f"{said}, and {wanted} has others", hint)


def curve(log_history: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """What transformers' Trainer has logged of losses, step by step."""
    return [
        {key: float(value) for key, value in entry.items() if key in _OF_CURVE}
        for entry in log_history
        if "loss" in entry or "eval_loss" in entry
    ]


def final_losses(losses: Sequence[Mapping[str, float]], kept_step: int | None) -> dict[str, float]:
    """The last training and evaluation loss (nats per answer token) up to the step whose state is kept.

    Returns:
        ``loss``, ``eval_loss`` and ``step``, those of them that are known.
    """
    seen = [entry for entry in losses if kept_step is None or entry.get("step", 0) <= kept_step]
    return {key: entry[key] for entry in seen for key in ("loss", "eval_loss", "step") if key in entry}


def versions() -> dict[str, str]:
    """Installed versions of what a result depends on."""
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }


def loss_unit(method: str) -> str:
    """What the losses of a training method are, for the axis of a plot."""
    return "preference loss" if method == PREFERENCE else "loss per answer token (nats)"


def plot_losses(record: RunRecord, path: Path) -> None:
    """Draw training and evaluation loss over steps as a PNG."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7, 4), layout="constrained", dpi=120)
    axes = figure.add_subplot()
    for key, label, marker in (("loss", "training", ""), ("eval_loss", "evaluation", "o")):
        points = [(entry["step"], entry[key]) for entry in record.losses if key in entry]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, marker=marker)
    unit = loss_unit(record.hyperparameters["method"])
    axes.set(title=f"{record.adapter} on {record.base}", xlabel="optimiser step", ylabel=unit)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path)
