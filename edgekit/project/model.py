"""What a project file says: its sections as frozen dataclasses, with the checks of each field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekit.data.source import DataSource
from edgekit_runtime.errors import InputError, UsageError
from edgekit_runtime.formats.manifest import NAME_PATTERN, TASKS, VERSION_PATTERN
from edgekit_runtime.hints import did_you_mean
from edgekit_runtime.prompts.reasoning import MODES as REASONING

PROJECT_FILE = "edgekit.yaml"
METHODS = ("qlora", "lora", "rslora", "dora", "pissa", "loftq", "lora+", "alora")
PROJECTORS = ("F16", "Q8_0", "BF16", "F32")
ONNX_PRECISIONS = {"onnx-int4": "int4", "onnx-int8": "int8"}  # base_precision -> what the ONNX base is exported at
PRECISIONS = ("gguf", *ONNX_PRECISIONS, "nf4", "int8", "bf16", "fp16", "fp32")
FORMATS = ("gguf", "onnx")
MODES = ("separate", "merged")
LOSSES = ("last", "all")
SCHEDULERS = ("linear", "cosine", "constant", "constant_with_warmup")
TARGET_WORDS = ("all-linear", "q/v")
AUTO = "auto"  # export.quantize: choose by measurement


def _rule(**checks: Any) -> dict[str, Any]:
    """Checks beyond a field's type: ``choices``, ``minimum``, ``above``, ``maximum``, ``pattern``."""
    return checks


@dataclass(frozen=True)
class DataFiles:
    """Training and evaluation rows; ``ignore`` and ``columns`` are part of both sources."""

    train: DataSource
    eval: DataSource
    ignore: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Generation:
    """Sampling defaults that travel with an adapter."""

    max_tokens: int | None = field(default=None, metadata=_rule(minimum=1, maximum=2**31 - 1))
    temperature: float | None = field(default=None, metadata=_rule(minimum=0, maximum=1000))
    top_k: int | None = field(default=None, metadata=_rule(minimum=0, maximum=2**31 - 1))
    top_p: float | None = field(default=None, metadata=_rule(above=0, maximum=1))

    def as_dict(self) -> dict[str, Any] | None:
        """Only what is set; None when nothing is."""
        return {key: value for key, value in vars(self).items() if value is not None} or None


@dataclass(frozen=True)
class Adapter:
    """One adapter to train, or (with ``path``) one that was trained elsewhere.

    ``alpha`` None stands for twice the rank; the patterns map module names or regular expressions to another rank or
    alpha, as in PEFT; ``base_precision`` None is decided by training; ``max_length`` is in
    tokens, None for the base's context; ``warmup_ratio`` is a share of all steps; ``connector`` also trains the layer
    between encoder and text model of a base that reads images; ``invocation`` is the text from which
    an activated LoRA (method alora) works, None for what the chat template puts before an answer; ``loss`` is on the
    last or on all turns of the assistant; ``reasoning`` None is decided by the rows.
    """

    name: str
    path: Path | None = None
    method: str = field(default="qlora", metadata=_rule(choices=METHODS))
    invocation: str | None = None
    rank: int = field(default=16, metadata=_rule(minimum=1, maximum=1024))
    alpha: int | None = field(default=None, metadata=_rule(minimum=1))
    dropout: float = field(default=0.05, metadata=_rule(minimum=0, maximum=0.9))
    targets: str | tuple[str, ...] = "all-linear"
    connector: bool = False
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, int] = field(default_factory=dict)
    base_precision: str | None = field(default=None, metadata=_rule(choices=PRECISIONS))
    epochs: float = field(default=3.0, metadata=_rule(above=0))
    max_steps: int | None = field(default=None, metadata=_rule(minimum=1))
    learning_rate: float = field(default=2e-4, metadata=_rule(above=0, maximum=1))
    scheduler: str = field(default="cosine", metadata=_rule(choices=SCHEDULERS))
    warmup_ratio: float = field(default=0.05, metadata=_rule(minimum=0, maximum=0.9))
    batch_size: int = field(default=8, metadata=_rule(minimum=1))
    gradient_accumulation: int = field(default=1, metadata=_rule(minimum=1))
    max_length: int | None = field(default=None, metadata=_rule(minimum=8))
    seed: int = field(default=0, metadata=_rule(minimum=0))
    system: str | None = None
    reasoning: str | None = field(default=None, metadata=_rule(choices=REASONING))
    loss: str = field(default="last", metadata=_rule(choices=LOSSES))
    version: str = field(default="1.0.0", metadata=_rule(pattern=VERSION_PATTERN))
    schema: dict[str, Any] | None = None
    generation: Generation = field(default_factory=Generation)
    data: DataFiles | None = None

    @property
    def lora_alpha(self) -> int:
        """``alpha``, or twice the rank."""
        return self.alpha or 2 * self.rank


@dataclass(frozen=True)
class Export:
    """Defaults of ``edgekit export``, and with ``quantize`` what training sees.

    ``imatrix`` weighs the quantiser by the training rows; ``tensor_types`` maps regular expressions over GGUF tensor
    names to types that differ from ``quantize``; ``projector`` is the type of what reads images; ``default_adapter``
    answers requests that name none: the first one when None, the bare base when it is "base".
    """

    format: str = field(default="gguf", metadata=_rule(choices=FORMATS))
    mode: str = field(default="separate", metadata=_rule(choices=MODES))
    quantize: str | None = None
    device: str | None = None
    imatrix: bool = False
    tensor_types: Mapping[str, str] = field(default_factory=dict)
    projector: str = field(default="F16", metadata=_rule(choices=PROJECTORS))
    default_adapter: str | None = None
    name: str | None = field(default=None, metadata=_rule(pattern=NAME_PATTERN))


@dataclass(frozen=True)
class Gate:
    """How much worse than the trained model exported files may answer, and how good they have to be.

    ``rows`` bounds the evaluation rows that are asked, 0 switches the gate off; ``max_loss_points`` are points of the
    task's score (0-100) beyond noise; ``max_mean_kl`` is in nats per answer token; ``min_score`` is the least score on
    the device; ``min_gain`` are points over the bare base that the low end of the gain's 95 % interval has to reach,
    None asks for more than zero.
    """

    rows: int = field(default=48, metadata=_rule(minimum=0))
    max_loss_points: float = field(default=1.0, metadata=_rule(minimum=0, maximum=100))
    max_mean_kl: float = field(default=0.05, metadata=_rule(minimum=0))
    min_score: float | None = field(default=None, metadata=_rule(minimum=0, maximum=100))
    min_gain: float | None = field(default=None, metadata=_rule(minimum=-100, maximum=100))


@dataclass(frozen=True)
class Project:
    """A project file; relative paths in it are resolved against ``folder``.

    ``chat_template`` is a file that takes the place of the base's own template.
    """

    folder: Path
    project: str = field(metadata=_rule(pattern=NAME_PATTERN))
    base: str
    adapters: Mapping[str, Adapter]
    task: str = field(default="text", metadata=_rule(choices=TASKS))
    data: DataFiles | None = None
    chat_template: Path | None = None
    export: Export = field(default_factory=Export)
    gate: Gate = field(default_factory=Gate)

    def adapter(self, name: str | None = None) -> Adapter:
        """The adapter called ``name``; the only one when None.

        Raises:
            InputError: no such adapter, or several and no name.
        """
        if name is None and len(self.adapters) == 1:
            return next(iter(self.adapters.values()))
        if name is None:
            raise InputError("the project has several adapters", f"name one of {', '.join(self.adapters)}")
        if name not in self.adapters:
            raise InputError(f"the project has no adapter {name!r}", did_you_mean(name, self.adapters, "it has"))
        return self.adapters[name]

    def named(self, names: Sequence[str]) -> list[Adapter]:
        """The adapters called ``names``.

        Raises:
            UsageError: one is named twice, which would make it work twice as much, or be listed twice.
            InputError: no such adapter.
        """
        twice = next((name for name in names if list(names).count(name) > 1), None)
        if twice is not None:
            raise UsageError(f"the adapter {twice} is named twice", "name it once")
        return [self.adapter(name) for name in names]

    def data_for(self, name: str) -> DataFiles:
        """The rows of an adapter: its own, or the project's.

        Raises:
            InputError: neither names any.
        """
        files = self.adapters[name].data or self.data
        if files is None:
            raise InputError(
                f"{PROJECT_FILE} names no data for adapter {name}",
                f"add data: {{train: …, eval: …}} to adapters.{name}",
            )
        return files
