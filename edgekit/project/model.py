"""What a project file says: its sections as frozen pydantic dataclasses, with the rules of each key.

From these come the checks of edgekit.yaml (:mod:`edgekit.project.loader`) and its JSON Schema
(:mod:`edgekit.project.schema`), descriptions included.  Values built in code have to keep the same rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator
from pydantic.dataclasses import dataclass
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError

from edgekit.data.source import DataSource
from edgekit.project.auto import Auto
from edgekit.project.combined import Combined
from edgekit.project.data_files import NO_ROWS, DataFiles
from edgekit.project.fields import (
    CLOSED,
    AdapterName,
    Argument,
    InProject,
    JsonSchema,
    Key,
    Number,
    OneOf,
    Switch,
    Targets,
    Template,
    Text,
    Whole,
    empty_is,
    matching,
    refused,
    refused_at,
    with_given,
)
from edgekit.project.generation import Generation
from edgekit.project.schedulers import SCHEDULERS, check_arguments
from edgekit.project.stacks import Stack
from edgekit_exporters.hf.known_templates import KNOWN_TEMPLATES
from edgekit_runtime.errors import InputError, UsageError
from edgekit_runtime.formats.manifest import F16, KV_CACHES, NAME_PATTERN, TASKS, VERSION_PATTERN
from edgekit_runtime.formats.prompt_adapter import MAX_VIRTUAL_TOKENS
from edgekit_runtime.formats.route import NO_ADAPTER, REFUSE
from edgekit_runtime.hints import did_you_mean
from edgekit_runtime.prompts.reasoning import MODES as REASONING

PROJECT_FILE = "edgekit.yaml"
ACTIVATED = "alora"
PREFERENCE = "dpo"
PROMPT_TUNING, P_TUNING = "prompt-tuning", "p-tuning"
VIRTUAL = (PROMPT_TUNING, P_TUNING)  # methods that train virtual tokens, and no layer
METHODS = ("qlora", "lora", "rslora", "dora", "pissa", "loftq", "lora+", ACTIVATED, PREFERENCE, *VIRTUAL)
# Learning rates where the project names none.  A row of an embedding has to move further than a matrix of a layer.
LAYER_RATE = 2e-4
VIRTUAL_RATES = {PROMPT_TUNING: 0.1, P_TUNING: 0.01}
VIRTUAL_TOKENS = 16
DECODE_BUDGET = 0.9  # share of the base's decode speed that `targets: auto` keeps where nobody says another
TRIMMABLE = ("qlora", "lora", "rslora", "lora+")  # methods that `targets: auto` goes with: plain pairs on a fixed base
PROJECTORS = ("F16", "Q8_0", "BF16", "F32")
FOLDABLE = ("qlora", "lora", "rslora", "lora+", PREFERENCE)  # methods that go with merged: plain pairs of layers
ONNX_PRECISIONS = {"onnx-int4": "int4", "onnx-int8": "int8"}  # base_precision -> what the ONNX base is exported at
PRECISIONS = ("gguf", *ONNX_PRECISIONS, "nf4", "int8", "bf16", "fp16", "fp32")
FORMATS = ("gguf", "onnx")
MODES = ("separate", "merged")
LOSSES = ("last", "all")
OPTIMIZERS = ("adamw_torch", "adafactor", "sgd", "rmsprop", "adamw_8bit", "paged_adamw_8bit", "lion_8bit")
KEPT = ("last", "best")
TRACKERS = ("tensorboard", "trackio", "wandb", "mlflow")
AUTO = "auto"  # export.quantize, targets: choose by measurement

# Keys of methods that train layers, and what they are where nobody has set them.
OF_LAYERS: Mapping[str, Any] = {
    "rank": 16,
    "alpha": None,
    "dropout": 0.0,
    "targets": "all-linear",
    "decode_budget": None,
    "connector": False,
    "rank_pattern": {},
    "alpha_pattern": {},
    "neftune_noise_alpha": None,  # its size is meant for the embeddings of a text
}

_Ranks = Mapping[Key, Whole]
_Types = Mapping[Key, Text]
_Arguments = Mapping[Key, Argument]
_Tracker = Annotated[Text, OneOf(TRACKERS)]
_Name = Annotated[Text, matching(NAME_PATTERN)]


def _several(value: object) -> object:
    """One name stands for a list of it."""
    return () if value is None else (value,) if isinstance(value, str) else value


@dataclass(frozen=True, config=CLOSED)
class Adapter:
    """One adapter to train, or (with ``path``) one that was trained elsewhere."""

    name: SkipJsonSchema[str]  # in a project file it is the key of the adapter
    path: InProject | None = Field(default=None, description="An adapter that was trained elsewhere: a folder or file")
    combined: Combined | None = Field(default=None, description="Made of other adapters, by `edgekit combine`")
    method: Annotated[Text, OneOf(METHODS)] = Field(default="qlora", description="How to train it")
    invocation: Text | None = Field(
        default=None,
        description="Of alora: the text from which it works; else what the chat template puts before an answer",
    )
    beta: Number | None = Field(
        default=None, gt=0, description="Of dpo: how near to the base the adapter stays; else 0.1"
    )
    virtual_tokens: Whole | None = Field(
        default=None,
        ge=1,
        le=MAX_VIRTUAL_TOKENS,
        description=f"Of prompt-tuning and p-tuning: how many embeddings are trained; else {VIRTUAL_TOKENS}",
    )
    init_text: Text | None = Field(
        default=None,
        min_length=1,
        description="Of prompt-tuning: the text whose embeddings training starts from; else system, or random tokens",
    )
    rank: Whole = Field(default=16, ge=1, le=1024, description="Rank of the update's two matrices")
    alpha: Whole | None = Field(default=None, ge=1, description="The update is scaled by alpha / rank; else 2 x rank")
    dropout: Number = Field(default=0.0, ge=0, le=0.9, description="Share of inputs left out in training")
    targets: Targets = Field(
        default="all-linear",
        description="Layers: all-linear, auto, q/v, a regular expression, or a list of names; experts by their"
        " parameters",
    )
    decode_budget: Number | None = Field(
        default=None,
        gt=0,
        lt=1,
        description=f"Of targets: auto: share of the base's decode speed to keep; else {DECODE_BUDGET:g}",
    )
    connector: Switch = Field(
        default=False, description="Also train the layer between encoder and text model of a base that reads images"
    )
    rank_pattern: Annotated[_Ranks, empty_is(dict, _Ranks)] = Field(
        default_factory=dict, description="Module name or regular expression -> another rank, as in PEFT"
    )
    alpha_pattern: Annotated[_Ranks, empty_is(dict, _Ranks)] = Field(
        default_factory=dict, description="Module name or regular expression -> another alpha, as in PEFT"
    )
    merged: Switch = Field(
        default=False,
        description="Train the blocks that devices run with the adapter folded in, for a merged export alone",
    )
    base_precision: Annotated[Text, OneOf(PRECISIONS)] | None = Field(
        default=None, description="What training sees of the base; else what export says that devices run"
    )
    epochs: Number = Field(default=3.0, gt=0, description="How often to go through the rows")
    max_steps: Whole | None = Field(default=None, ge=1, description="Bound on training steps; goes before epochs")
    learning_rate: Number | None = Field(
        default=None,
        gt=0,
        le=1,
        description=f"Highest learning rate; else {LAYER_RATE:g}, of prompt-tuning {VIRTUAL_RATES[PROMPT_TUNING]:g}, "
        f"of p-tuning {VIRTUAL_RATES[P_TUNING]:g}",
    )
    scheduler: Annotated[Text, OneOf(SCHEDULERS)] = Field(
        default="cosine", description="How the learning rate goes down"
    )
    lr_scheduler_kwargs: Annotated[_Arguments, empty_is(dict, _Arguments)] = Field(
        default_factory=dict, description="Arguments of the scheduler, as transformers names them: {power: 2.0}"
    )
    warmup_ratio: Number = Field(default=0.05, ge=0, le=0.9, description="Share of all steps in which the rate goes up")
    warmup_steps: Whole | None = Field(default=None, ge=0, description="Steps in which it does; goes before the share")
    optim: Annotated[Text, OneOf(OPTIMIZERS)] | None = Field(
        default=None, description="Optimizer; else adamw_torch on a CPU, paged_adamw_8bit on a GPU"
    )
    weight_decay: Number = Field(default=0.0, ge=0, le=1, description="Weight decay of the optimizer")
    max_grad_norm: Number = Field(default=1.0, ge=0, description="Clip gradients at this norm; 0 for no clipping")
    label_smoothing_factor: Number = Field(
        default=0.0, ge=0, le=0.9, description="Share of a token's probability that goes to all tokens alike"
    )
    neftune_noise_alpha: Number | None = Field(
        default=None, gt=0, description="Noise on embeddings in training (NEFTune): 5, say"
    )
    eval_steps: Whole | None = Field(
        default=None, ge=1, description="Steps between two evaluations; else 3 of them, 10 with early_stopping"
    )
    early_stopping: Whole | None = Field(
        default=None, ge=1, description="Stop after so many evaluations without a lower evaluation loss"
    )
    keep: Annotated[Text, OneOf(KEPT)] | None = Field(
        default=None,
        description="The last state, or the best by evaluation loss; else best with early_stopping",
    )
    samples: Whole = Field(
        default=0, ge=0, le=32, description="Evaluation rows to answer at each evaluation, for you to look at"
    )
    report_to: Annotated[
        tuple[_Tracker, ...], BeforeValidator(_several, json_schema_input_type=_Tracker | list[_Tracker] | None)
    ] = Field(default=(), description="Trackers that follow the training; each is an extra of edgekit")
    batch_size: Whole = Field(default=8, ge=1, description="Rows that are computed together")
    gradient_accumulation: Whole = Field(default=1, ge=1, description="Batches in a step")
    max_length: Whole | None = Field(default=None, ge=8, description="Longest row in tokens; else the base's context")
    seed: Whole = Field(default=0, ge=0, description="Same seed, same adapter")
    system: Text | None = Field(default=None, description="System prompt, trained with and sent to the device")
    reasoning: Annotated[Text, OneOf(REASONING)] | None = Field(
        default=None, description="Learn the reasoning before answers, or leave it out; else the rows decide"
    )
    loss: Annotated[Text, OneOf(LOSSES)] = Field(
        default="last", description="Learn the last answer of a conversation, or all turns of the assistant"
    )
    version: Annotated[Text, matching(VERSION_PATTERN)] = Field(default="1.0.0", description="Part of the file's name")
    schema: JsonSchema = Field(default=None, description="JSON schema of answers, or a file with one")
    generation: Annotated[Generation, empty_is(Generation, Generation)] = Field(
        default_factory=Generation, description="Sampling defaults on the device"
    )
    data: DataFiles | None = Field(default=None, description="Its own rows; else the project's")

    @property
    def is_trained(self) -> bool:
        """Whether edgekit trains it: it is neither imported nor made of others."""
        return self.path is None and self.combined is None

    @property
    def highest_rank(self) -> int:
        """Of its pairs; all get it in the files of the engines."""
        return max(self.rank, *self.rank_pattern.values(), 1)

    @property
    def lora_alpha(self) -> int:
        """``alpha``, or twice the rank."""
        return self.alpha or 2 * self.rank

    @property
    def highest_rate(self) -> float:
        """``learning_rate``, or what suits the method."""
        return self.learning_rate or VIRTUAL_RATES.get(self.method, LAYER_RATE)

    @property
    def token_count(self) -> int:
        """Virtual tokens that its method trains; 0 for methods that train layers."""
        return (self.virtual_tokens or VIRTUAL_TOKENS) if self.method in VIRTUAL else 0

    @property
    def keeps_best(self) -> bool:
        """Whether the adapter of the lowest evaluation loss is kept, not the last one."""
        return self.keep == "best" or (self.keep is None and self.early_stopping is not None)

    @property
    def least_share(self) -> float:
        """``decode_budget``, or what `targets: auto` keeps without one."""
        return self.decode_budget or DECODE_BUDGET

    @model_validator(mode="after")
    def _budget_of_auto(self) -> Adapter:
        if self.targets != AUTO and self.decode_budget is not None:
            error = refused("only targets: auto keeps one", f"targets: {AUTO}, or leave it out")
            raise refused_at(("decode_budget",), error, self.decode_budget)
        if self.targets == AUTO and self.method not in (*TRIMMABLE, *VIRTUAL):
            error = refused(f"auto doesn't go with method: {self.method}", f"use one of {', '.join(TRIMMABLE)}")
            raise refused_at(("targets",), error, self.targets)
        return self

    @model_validator(mode="after")
    def _arguments_of_the_scheduler(self) -> Adapter:
        check_arguments(self.scheduler, self.lr_scheduler_kwargs)
        return self

    @model_validator(mode="after")
    def _is_of_one_origin(self) -> Adapter:
        if self.combined is not None and self.path is not None:
            error = refused("an adapter at a path is there already", "leave out path, or combined")
            raise refused_at(("combined",), error, self.path)
        if self.data is not None and self.data.train == NO_ROWS and self.is_trained:
            raise refused_at(("data", "train"), "missing", self.data)
        return self

    @model_validator(mode="after")
    def _invoked_if_activated(self) -> Adapter:
        if self.invocation is not None and self.method != ACTIVATED:
            error = refused("only an activated LoRA has one", f"method: {ACTIVATED}")
            raise refused_at(("invocation",), error, self.invocation)
        return self

    @model_validator(mode="after")
    def _fits_merged(self) -> Adapter:
        if not self.merged:
            return self
        if self.method not in FOLDABLE:
            error = refused(f"it doesn't go with method: {self.method}", f"use one of {', '.join(FOLDABLE)}")
            raise refused_at(("merged",), error, self.merged)
        if self.base_precision not in (None, "gguf"):
            error = refused(f"base_precision {self.base_precision} has no GGUF blocks to fold into", "leave one out")
            raise refused_at(("merged",), error, self.merged)
        for key, reason in (
            ("dropout", "a weight with the adapter in it has no inputs of its own to leave out"),
            ("connector", "a connector isn't merged"),
        ):
            if getattr(self, key):
                error = refused(f"merged: true is set, and {reason}", "leave it out")
                raise refused_at((key,), error, getattr(self, key))
        return self

    @model_validator(mode="after")
    def _fits_virtual_tokens(self) -> Adapter:
        if self.init_text is not None and self.method != PROMPT_TUNING:
            error = refused("it is where prompt tuning starts", f"method: {PROMPT_TUNING}, or leave it out")
            raise refused_at(("init_text",), error, self.init_text)
        if self.method not in VIRTUAL:
            if self.virtual_tokens is not None:
                error = refused("only virtual tokens are counted by it", f"method: {PROMPT_TUNING} or {P_TUNING}")
                raise refused_at(("virtual_tokens",), error, self.virtual_tokens)
            return self
        for key, idle in OF_LAYERS.items():
            if getattr(self, key) != idle:
                error = refused(f"method: {self.method} trains no layer", "leave it out")
                raise refused_at((key,), error, getattr(self, key))
        return self

    @model_validator(mode="after")
    def _fits_preferences(self) -> Adapter:
        if self.method != PREFERENCE:
            if self.beta is not None:
                raise refused_at(("beta",), refused("only preferences have one", f"method: {PREFERENCE}"), self.beta)
            return self
        for key, idle in (("label_smoothing_factor", 0), ("loss", "last")):
            if getattr(self, key) != idle:
                error = refused(f"it doesn't go with method: {PREFERENCE}", "leave it out")
                raise refused_at((key,), error, getattr(self, key))
        return self


@dataclass(frozen=True, config=CLOSED)
class Export:
    """Defaults of ``edgekit export``, and with ``quantize`` what training sees."""

    format: Annotated[Text, OneOf(FORMATS)] = Field(
        default="gguf", description="Engine of the device: llama.cpp, or ONNX"
    )
    mode: Annotated[Text, OneOf(MODES)] = Field(
        default="separate", description="Adapters beside the base, or one folded into it"
    )
    quantize: Text | None = Field(
        default=None, description="Type of the base's weights: Q4_0, Q8_0, F16 ..., or auto; for ONNX int4 ... fp32"
    )
    device: Text | None = Field(default=None, description="A device profile; `edgekit devices` lists them")
    imatrix: Switch = Field(default=False, description="Weigh the quantizer by the training rows")
    tensor_types: Annotated[_Types, empty_is(dict, _Types)] = Field(
        default_factory=dict, description="Regular expression over GGUF tensor names -> another type than quantize"
    )
    kv_cache: Annotated[Text, OneOf(KV_CACHES)] = Field(
        default=F16, description="KV cache on devices; of the memory of f16, q8_0-f16 takes 0.77, q8_0 0.53, q4_0 0.28"
    )
    projector: Annotated[Text, OneOf(PROJECTORS)] = Field(default="F16", description="Type of what reads images")
    default_adapter: Text | None = Field(
        default=None,
        description="The adapter or stack of requests that name none; else the first adapter; base for none",
    )
    name: _Name | None = Field(default=None, description="Name of the bundle; else the project's")


@dataclass(frozen=True, config=CLOSED)
class Gate:
    """How much worse than the trained model exported files may answer, and how good they have to be."""

    rows: Whole = Field(default=48, ge=0, description="Most evaluation rows to ask; 0 switches the proof off")
    max_loss_points: Number = Field(
        default=1.0, ge=0, le=100, description="Points of the task's score (0-100), beyond noise, that may be lost"
    )
    max_mean_kl: Number = Field(default=0.05, ge=0, description="Most mean KL, in nats per answer token")
    max_part_loss_points: Number = Field(
        default=5.0,
        ge=0,
        le=100,
        description="Points, beyond noise, that a combination may lose on the rows of each adapter that it is made of",
    )
    min_score: Number | None = Field(default=None, ge=0, le=100, description="Least score on the device (0-100)")
    min_gain: Number | None = Field(
        default=None,
        ge=-100,
        le=100,
        description="Points over the bare base at the low end of the gain's 95 % interval; else more than zero",
    )


def _named(entries: object) -> object:
    """Each adapter of the file with its name; one without any key has all defaults."""
    if not isinstance(entries, Mapping):
        return entries
    return {name: with_given({} if entry is None else entry, (name,), name=name) for name, entry in entries.items()}


_Adapters = Annotated[Mapping[AdapterName, Adapter | None], Field(min_length=1)]
_Stacks = Mapping[AdapterName, Stack]


@dataclass(frozen=True, config=CLOSED)
class Project:
    """A project file; relative paths in it are resolved against ``folder``."""

    folder: SkipJsonSchema[Path]  # where the project file lies
    project: _Name = Field(description="Name of the project: a-z, 0-9, ., _ and -")
    base: Text = Field(
        description="Hub id, Hugging Face folder or GGUF file; smollm2-135m, or demo-vlm for images, come with edgekit"
    )
    adapters: Annotated[Mapping[AdapterName, Adapter], BeforeValidator(_named, json_schema_input_type=_Adapters)] = (
        Field(min_length=1, description="Name -> settings of an adapter")
    )
    stacks: Annotated[
        _Stacks,
        BeforeValidator(lambda value: _named({} if value is None else value), json_schema_input_type=_Stacks | None),
    ] = Field(default_factory=dict, description="Name -> adapters that answer together under this name")
    auto: Auto | None = Field(
        default=None, description="Devices choose the adapter of requests for auto; {} leaves the rest to the base"
    )
    task: Annotated[Text, OneOf(TASKS)] = Field(default="text", description="caption for rows with images")
    data: DataFiles | None = Field(default=None, description="Rows of adapters that have none of their own")
    chat_template: Template | None = Field(
        default=None,
        description=f"Instead of the base's own: a jinja file, or {', '.join(KNOWN_TEMPLATES)}",
    )
    export: Annotated[Export, empty_is(Export, Export)] = Field(
        default_factory=Export, description="Defaults of `edgekit export`, and what training sees"
    )
    gate: Annotated[Gate, empty_is(Gate, Gate)] = Field(
        default_factory=Gate, description="What an export may lose, and how good it has to be"
    )

    @model_validator(mode="after")
    def _has_rows_to_train_on(self) -> Project:
        trained = any(each.is_trained and each.data is None for each in self.adapters.values())
        if trained and self.data is not None and self.data.train == NO_ROWS:
            raise refused_at(("data", "train"), "missing", self.data)
        return self

    @model_validator(mode="after")
    def _stacks_of_adapters(self) -> Project:
        for name, stack in self.stacks.items():
            if name in self.adapters:
                error = refused("an adapter has this name", "give the stack another one")
                raise refused_at(("stacks", name), error, name)
            for part in stack.adapters:
                if (problem := self._no_part(part)) is not None:
                    raise refused_at(("stacks", name, "adapters", part), problem, part)
        return self

    @model_validator(mode="after")
    def _auto_among_adapters(self) -> Project:
        if self.auto is None:
            return self
        if self.task == "caption":
            error = refused("auto reads texts, and captions are of images", "leave it out")
            raise refused_at(("auto",), error, self.auto)
        fallback = self.auto.fallback
        if fallback not in (*NO_ADAPTER, *self.adapters):
            error = refused(f"{fallback!r} answers nothing", did_you_mean(fallback, (*NO_ADAPTER, *self.adapters)))
            raise refused_at(("auto", "fallback"), error, fallback)
        if fallback == REFUSE and REFUSE in self.adapters:
            error = refused("it is the name of an adapter, and also says that nobody answers", "rename the adapter")
            raise refused_at(("auto", "fallback"), error, fallback)
        return self

    def _no_part(self, name: str) -> PydanticCustomError | None:
        """Why this can't be in a stack."""
        known = self.adapters.get(name)
        if known is None:
            return refused("the project has no such adapter", did_you_mean(name, self.adapters, "it has"))
        if known.merged:
            return refused("it is trained merged: there is no file of it to add", "train it without merged")
        if known.method in VIRTUAL and known.path is None:
            return refused("a prompt adapter answers alone", "name adapters of another method")
        return None

    def adapter(self, name: str | None = None) -> Adapter:
        """The adapter called ``name``; the only one when None.

        Raises:
            InputError: no such adapter, a stack, or several and no name.
        """
        if name is None and len(self.adapters) == 1:
            return next(iter(self.adapters.values()))
        if name is None:
            raise InputError("the project has several adapters", f"name one of {', '.join(self.adapters)}")
        if name in self.stacks:
            parts = ", ".join(self.stacks[name].adapters)
            raise InputError(f"{name} is a stack, not an adapter", f"name its adapters: {parts}")
        if name not in self.adapters:
            raise InputError(f"the project has no adapter {name!r}", did_you_mean(name, self.adapters, "it has"))
        return self.adapters[name]

    def subject(self, name: str | None = None) -> Adapter:
        """As :meth:`adapter`; a stack as an adapter that has its name, words and rows.

        Without a system prompt of its own a stack has that of its parts, where all have the same.
        """
        if name is None or name not in self.stacks:
            return self.adapter(name)
        stack = self.stacks[name]
        systems = {self.adapters[part].system for part in stack.adapters}
        common = systems.pop() if len(systems) == 1 else None
        return Adapter(
            name=name,
            system=common if stack.system is None else stack.system,
            schema=stack.schema,
            generation=stack.generation,
            data=stack.data,
        )

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

    def eval_files(self, name: str) -> list[DataSource]:
        """The evaluation rows of an adapter or a stack; without its own, a stack has those of its parts.

        Raises:
            InputError: there are none.
        """
        stack = self.stacks.get(name)
        if stack is not None and stack.data is not None:
            return [stack.data.eval]
        found: list[DataSource] = []
        for each in [name] if stack is None else stack.scales:
            file = self.data_for(each).eval
            if file not in found:
                found.append(file)
        return found

    def data_for(self, name: str) -> DataFiles:
        """The rows of an adapter: its own, or the project's.

        Raises:
            InputError: neither names any.
        """
        files = self.adapters[name].data or self.data
        if files is not None and self.adapters[name].method == PREFERENCE:
            train, evaluation = (replace(each, preferences=True) for each in (files.train, files.eval))
            return replace(files, train=train, eval=evaluation)
        if files is None:
            raise InputError(
                f"{PROJECT_FILE} names no data for adapter {name}",
                f"add data: {{train: …, eval: …}} to adapters.{name}",
            )
        return files
