"""adapter_config.json: types and values of every key that matters, and nothing that is on and isn't understood."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekit_exporters.peft.prompts import OTHER_VECTORS, PROMPT_TYPES
from edgekit_runtime.errors import InputError

INVOCATION = "alora_invocation_tokens"  # config key of activated LoRA
MAX_RANK = 1 << 16
MAX_ALPHA = 1e6
MAX_LAYER = 1 << 16
BIASES = ("none", "all", "lora_only")
REPEATABLE_STARTS = ("pissa", "olora")  # initialisations that are a function of the base alone, which they change
PLAIN_STARTS = ("gaussian", "orthogonal", "eva", "mica")  # of A and B alone
CONVERTED_STARTS = ("pissa_niter_", "corda", "lora_ga")  # PEFT can turn them into plain LoRA when it saves them
# Not understood, and why, when they are on.
REFUSED = {
    "layer_replication": "it repeats layers of the base",
    "use_qalora": "QA-LoRA pools inputs, on GPTQ bases only",
    "megatron_config": "it is for layers of Megatron",
    "velora_config": "VeLoRA keeps compressed activations",
    "monteclora_config": "its weights are drawn at random",
    "use_bdlora": "its matrices are block-diagonal",
    "arrow_config": "it routes between several adapters",
    "kasa_config": "KaSA cuts the base's weights",
}
# They tell of a training or a place, or are read only where another key is on.
TOLD = (
    *(
        "auto_mapping",
        "base_model_name_or_path",
        "revision",
        "peft_version",
        "inference_mode",
        "task_type",
        "peft_type",
    ),
    *("megatron_core", "qalora_group_size", "runtime_config", "lora_dropout"),
    *("loftq_config", "eva_config", "corda_config", "lora_ga_config"),
)


OTHER_KINDS = (
    "LoRA, AdaLoRA, VeRA, prompt tuning and P-tuning can be exported; where the kind changes weights, PEFT's "
    "merge_and_unload makes a model of it that can be the base"
)


@dataclass(frozen=True)
class Settings:
    """What adapter_config.json says, of the right types; ``file`` is for messages.

    ``rank_pattern`` and ``alpha_pattern`` map regular expressions over the ends of module names, as in PEFT.
    """

    file: Path
    r: int
    lora_alpha: float
    target_modules: str | tuple[str, ...]
    exclude_modules: str | tuple[str, ...] | None = None
    layers_to_transform: tuple[int, ...] | None = None
    layers_pattern: tuple[str, ...] | None = None
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    use_rslora: bool = False
    use_dora: bool = False
    lora_bias: bool = False
    bias: str = "none"
    fan_in_fan_out: bool = False
    ensure_weight_tying: bool = False
    init_lora_weights: bool | str = True
    modules_to_save: tuple[str, ...] = ()
    trainable_token_indices: list[int] | dict[str, list[int]] | None = None
    target_parameters: tuple[str, ...] = ()
    invocation: tuple[int, ...] = ()

    @property
    def moves_base(self) -> bool:
        """Whether the start of training was taken out of the base's weights."""
        return self.init_lora_weights in REPEATABLE_STARTS

    @property
    def trained_tokens(self) -> list[int]:
        """Tokens whose embeddings were trained alone."""
        indices = self.trainable_token_indices or []
        return [token for each in indices.values() for token in each] if isinstance(indices, dict) else indices

    def error(self, key: str, problem: str, hint: str) -> InputError:
        """An error that names file and key."""
        return InputError(f"{self.file}: {key}: {problem}", hint)


def checked_settings(raw: Mapping[str, Any], file: Path) -> Settings:
    """Check what a config says.

    Args:
        raw: the JSON object.
        file: where it is from, for messages.

    Raises:
        InputError: not LoRA, a value that can't be right, or a key that is on and isn't understood.
    """
    if raw.get("peft_type") != "LORA":
        if raw.get("peft_type") is None:
            problem = f"{file}: peft_type is missing, so this is no config of PEFT"
            raise InputError(problem, "turn the adapter into PEFT's form, which the tool that wrote it can mostly do")
        reason = OTHER_VECTORS.get(str(raw["peft_type"]))
        if reason is not None:
            raise InputError(
                f"{file}: peft_type: {_shown(raw['peft_type'])} can't be exported: {reason}",
                f"train it as {' or '.join(PROMPT_TYPES)}, whose vectors stand before the prompt, or as LoRA",
            )
        problem = f"{file}: peft_type: {_shown(raw['peft_type'])} is not 'LORA'"
        raise InputError(problem, OTHER_KINDS)
    for key, reason in REFUSED.items():
        if raw.get(key) or raw.get(key) == {}:  # PEFT takes an empty one as all defaults
            raise InputError(f"{file}: {key} is on, which edgekit can't do: {reason}", f"train without {key}")
    known = {*_RULES, *REFUSED, *TOLD}
    for key, value in raw.items():
        if key not in known and _is_on(value):
            raise InputError(
                f"{file}: {key} is on, and this version of edgekit doesn't know what it does",
                f"train without {key}; where it changes nothing, take it out of the file",
            )
    values: dict[str, Any] = {}
    for key, (read, wanted, needed) in _RULES.items():
        value = raw.get(key)
        if value is None:
            if needed:
                said = "null" if key in raw else "missing"
                raise InputError(f"{file}: {key}: it is {said}, and has to be {wanted}", "write what was trained with")
            continue
        try:
            found = read(value)
            if found not in ((), {}, []):  # empty is off, as in PEFT
                values[key] = found
        except (ValueError, TypeError, OverflowError, RecursionError):
            raise InputError(f"{file}: {key}: {_shown(value)} is not {wanted}", "write what was trained with") from None
    values["invocation"] = values.pop(INVOCATION, ())
    if "target_modules" not in values:
        if "target_parameters" not in values:
            raise InputError(f"{file}: target_modules: it names no module", "write what was trained with")
        values["target_modules"] = ()
    settings = Settings(file=file, **values)
    _check_together(settings)
    return settings


def _check_together(settings: Settings) -> None:
    """What no value alone shows."""
    start = settings.init_lora_weights
    if isinstance(start, str) and start not in (*REPEATABLE_STARTS, *PLAIN_STARTS):
        if start.startswith(CONVERTED_STARTS):
            raise InputError(
                f"{settings.file} was initialised with {start}, which changes the base in a way that can't be "
                "computed again",
                "save it with PEFT's path_initial_model_for_weight_conversion, which turns it into plain LoRA",
            )
        raise settings.error("init_lora_weights", f"edgekit doesn't know the start {start}", "train with another one")
    if isinstance(settings.target_modules, str):
        for key in ("layers_to_transform", "layers_pattern"):
            if getattr(settings, key) is not None:
                raise settings.error(key, "it goes with a list of target_modules only", f"take {key} out")
    if settings.layers_pattern and settings.layers_to_transform is None:
        raise settings.error("layers_pattern", "it needs layers_to_transform", "write both, or take it out")
    if settings.invocation and (settings.use_dora or settings.lora_bias or settings.target_parameters):
        raise settings.error(INVOCATION, "an activated LoRA is plain LoRA otherwise", "train with one of the two")


def _is_on(value: Any) -> bool:
    """NaN and whatever is not nothing."""
    return value not in (None, False, 0, "", [], {}, "none", "None", "false")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _whole(low: int, high: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError
        return value

    return read


def _alpha(value: Any) -> float:
    # NaN compares false.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= MAX_ALPHA:
        raise ValueError
    return value


def _switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _words(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
        raise ValueError
    return tuple(dict.fromkeys(value))


def _targets(value: Any) -> str | tuple[str, ...]:
    """A regular expression, or a list of names."""
    if isinstance(value, str):
        if not value:
            raise ValueError
        if value.lower() != "all-linear":
            _pattern(value)
        return value
    return _words(value)


def _layers(value: Any) -> tuple[int, ...]:
    number = _whole(0, MAX_LAYER)
    if not isinstance(value, list):
        return (number(value),)
    return tuple(map(number, value))


def _layer_names(value: Any) -> tuple[str, ...]:
    words = (value,) if isinstance(value, str) else _words(value)
    for each in words:
        _pattern(each)
    return words


def _pattern(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    try:
        re.compile(rf"(.*\.)?({value})$")  # as PEFT puts it
        re.compile(value)
    except (re.error, RecursionError, OverflowError):
        raise ValueError from None
    return value


def _mapping(item: Callable[[Any], Any]) -> Callable[[Any], dict[str, Any]]:
    def read(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise TypeError
        return {_pattern(key): item(each) for key, each in value.items()}

    return read


def _choice(*choices: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in choices:
            raise ValueError
        return str(value)

    return read


def _start(value: Any) -> bool | str:
    if not isinstance(value, (bool, str)) or value == "":
        raise ValueError
    return value


def _tokens(value: Any) -> list[int]:
    if not isinstance(value, list):
        raise TypeError
    return list(map(_whole(0, (1 << 31) - 1), value))


def _token_lists(value: Any) -> list[int] | dict[str, list[int]]:
    return {str(name): _tokens(each) for name, each in value.items()} if isinstance(value, dict) else _tokens(value)


_RANK = f"a whole number from 1 to {MAX_RANK}"
_ALPHA = f"a number above 0 and at most {MAX_ALPHA:.0f}"
_SWITCH = "true or false"
_NAMES = "a regular expression or a list of module names"
# key -> how it is read, what it has to be, whether it has to be there
_RULES: dict[str, tuple[Callable[[Any], Any], str, bool]] = {
    "r": (_whole(1, MAX_RANK), _RANK, True),
    "lora_alpha": (_alpha, _ALPHA, True),
    "target_modules": (_targets, _NAMES, False),
    "exclude_modules": (_targets, _NAMES, False),
    "layers_to_transform": (_layers, "a list of layer numbers", False),
    "layers_pattern": (_layer_names, "a name or a list of names", False),
    "rank_pattern": (_mapping(_whole(1, MAX_RANK)), f"a mapping of regular expressions to ranks, {_RANK} each", False),
    "alpha_pattern": (_mapping(_alpha), f"a mapping of regular expressions to alphas, {_ALPHA} each", False),
    "use_rslora": (_switch, _SWITCH, False),
    "use_dora": (_switch, _SWITCH, False),
    "lora_bias": (_switch, _SWITCH, False),
    "bias": (_choice(*BIASES), " or ".join(BIASES), False),
    "fan_in_fan_out": (_switch, _SWITCH, False),
    "ensure_weight_tying": (_switch, _SWITCH, False),
    "init_lora_weights": (_start, "true, false or the name of an initialisation", False),
    "modules_to_save": (_words, "a list of module names", False),
    "trainable_token_indices": (_token_lists, "a list of token ids, or a mapping of names to such lists", False),
    "target_parameters": (_words, "a list of parameter names", False),
    INVOCATION: (lambda value: tuple(_tokens(value)), "a list of token ids", False),
}
