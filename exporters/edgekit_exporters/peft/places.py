"""Which modules of a base an adapter's settings mean, with which rank and alpha, and what tensors PEFT has for them."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from edgekit_exporters.base import Base
from edgekit_exporters.hf.float_model import skeleton
from edgekit_exporters.peft.as_named import as_named
from edgekit_exporters.peft.base_modules import RESIZED, BaseModules
from edgekit_exporters.peft.names import PREFIX, TensorName, file_names
from edgekit_exporters.peft.of_parameters import OfParameter, is_parameter, of_parameter
from edgekit_exporters.peft.pattern_time import check_time
from edgekit_exporters.peft.settings import INVOCATION, Settings
from edgekit_runtime.errors import InputError

OTHER_BASE = "use the base that it was trained on"


@dataclass(frozen=True)
class Resolved:
    """What an adapter's settings come to on its base.

    Attributes:
        ranks: module -> rank, of modules that ``target_modules`` names.
        alphas: module -> alpha.
        shapes: PEFT's name of each tensor -> its shape.
        pairs: module -> names of its A and B.
        scales: module -> what ``B @ A`` is multiplied by.
        transposed: modules whose base weight is stored [in, out] (GPT-2's Conv1D).
        parameters: of those of ``pairs`` that go around a parameter, which one.
    """

    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    shapes: Mapping[str, tuple[int, ...]]
    pairs: Mapping[str, tuple[str, str]]
    scales: Mapping[str, float]
    transposed: frozenset[str]
    parameters: Mapping[str, OfParameter]

    def config(self, settings: Settings, *, plain_start: bool = False, connector: str | None = None) -> Any:
        """PEFT's configuration, every module by its full name."""
        return _peft_config(settings, self.ranks, self.alphas, plain_start=plain_start, connector=connector)


def resolve(
    settings: Settings,
    names: list[TensorName],
    tensors: Mapping[str, torch.Tensor],
    modules: BaseModules,
    file: Path,
    base: Base,
) -> Resolved:
    """Find what ``settings`` mean on the base, and check ranks and layers against the file's tensors.

    Raises:
        InputError: a pattern that takes too long, a target that the base or the file lacks, a rank that the tensors
            don't have, or what PEFT refuses.
    """
    called = file_names(names)
    check_time(settings, {name for module in modules.names for name in _both(module, called)})
    targeted = _targeted(settings, modules, called, base)
    ranks = {module: _of_pattern(settings, "rank_pattern", "r", module, called) for module in targeted}
    alphas = {module: _of_pattern(settings, "alpha_pattern", "lora_alpha", module, called) for module in targeted}
    _check_ranks(settings, ranks, names, tensors, file)
    _check_saved(settings, modules, base)
    return _asked_of_peft(settings, ranks, alphas, base)


def _targeted(settings: Settings, modules: BaseModules, called: Mapping[str, str], base: Base) -> list[str]:
    """The modules that the settings name, under the base's names or under those of the model in training."""
    if settings.target_parameters and not settings.target_modules:
        return []
    config = _match_config(settings)
    linear = _all_linear(settings, modules)
    found = [
        module
        for module in modules.adaptable
        if (module in linear if linear is not None else any(_matches(config, name) for name in _both(module, called)))
    ]
    ends = [modules.embedding, modules.output]
    if settings.ensure_weight_tying and modules.tied and set(ends) & set(found):
        found += [each for each in ends if each not in found]
    if isinstance(settings.target_modules, tuple):
        _check_targets(settings, modules, called, base)
    elif not found:
        raise settings.error("target_modules", f"it fits no layer of {base.name}", _mend_pattern(settings, modules))
    if not found:
        raise settings.error("target_modules", f"with the other settings no layer of {base.name} is left", OTHER_BASE)
    return found


def _both(module: str, called: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((module, called.get(module, module))))


def _check_targets(settings: Settings, modules: BaseModules, called: Mapping[str, str], base: Base) -> None:
    """Each of a list fits something; PEFT passes over those that don't."""
    every = [f".{name}" for module in modules.names for name in _both(module, called)]
    for target in settings.target_modules:
        if not any(name.endswith(f".{target}") for name in every):
            raise settings.error(
                "target_modules", f"{target} does not fit {base.name}, which has no such layer", OTHER_BASE
            )
        if not any(f".{name}".endswith(f".{target}") for each in modules.adaptable for name in _both(each, called)):
            raise settings.error(
                "target_modules", f"{target} is no linear layer or embedding of {base.name}", "train linear layers"
            )


def _mend_pattern(settings: Settings, modules: BaseModules) -> str:
    """PEFT takes a text as a regular expression over whole names, where a name or several were often meant."""
    words = re.split(r"[\s,|]+", str(settings.target_modules).strip())
    ends = {name.rpartition(".")[2] for name in modules.adaptable}
    if not set(words) <= ends:
        return OTHER_BASE
    return f"a text has to fit whole names; write the list {json.dumps(words)} if these were trained"


def _all_linear(settings: Settings, modules: BaseModules) -> set[str] | None:
    """All layers but the output matrix and the embedding, for the word that says so."""
    targets = settings.target_modules
    if not isinstance(targets, str) or targets.lower() != "all-linear":
        return None
    config = _match_config(settings, targets=".*")
    return {
        module
        for module in modules.adaptable
        if module not in (modules.output, modules.embedding) and _matches(config, module)
    }


def _match_config(settings: Settings, targets: str | None = None) -> Any:
    from peft import LoraConfig

    listed = targets or settings.target_modules
    excluded = settings.exclude_modules
    return LoraConfig(
        target_modules=list(listed) if isinstance(listed, tuple) else listed,
        exclude_modules=list(excluded) if isinstance(excluded, tuple) else excluded,
        layers_to_transform=list(settings.layers_to_transform) if settings.layers_to_transform else None,
        layers_pattern=list(settings.layers_pattern) if settings.layers_pattern else None,
        modules_to_save=list(settings.modules_to_save) or None,
    )


def _matches(config: Any, name: str) -> bool:
    from peft.tuners.tuners_utils import check_target_module_exists

    return bool(check_target_module_exists(config, name))


def _of_pattern(settings: Settings, key: str, default: str, module: str, called: Mapping[str, str]) -> Any:
    """The rank or alpha of a module: the first pattern that fits, as in PEFT."""
    pattern: Mapping[str, Any] = getattr(settings, key)
    found = []
    for name in _both(module, called):
        fitting = next((each for each in pattern if re.match(rf"(.*\.)?({each})$", name)), None)
        found.append(getattr(settings, default) if fitting is None else pattern[fitting])
    if len(set(found)) > 1:
        raise settings.error(
            key, f"it fits {called[module]} in the file, and not {module} of the base", f"write {key} for {module}"
        )
    return found[0]


def _check_ranks(
    settings: Settings,
    ranks: Mapping[str, int],
    names: Iterable[TensorName],
    tensors: Mapping[str, torch.Tensor],
    file: Path,
) -> None:
    """A rank of the config that isn't the tensors' makes the adapter stronger or weaker than it was trained."""
    axes = {"lora_A.weight": 0, "lora_B.weight": 1, "lora_embedding_A": 0, "lora_embedding_B": 1}
    for name in names:
        axis, value = axes.get(name.part), tensors[name.written]
        if axis is None:
            continue
        if value.dim() != 2 or 0 in value.shape:
            raise InputError(
                f"{file}: {name.written} is {list(value.shape)}, no matrix with anything in it",
                "it was saved while it was spread over GPUs: gather it first, then save it again",
            )
        if name.module not in ranks and not settings.target_parameters:
            raise InputError(
                f"{file}: {name.written} adapts {name.module}, which {settings.file.name} doesn't name as a target",
                "put the config of its training there",
            )
        if name.module in ranks and value.shape[axis] != ranks[name.module]:
            key = "r" if ranks[name.module] == settings.r else "rank_pattern"
            raise settings.error(
                key,
                f"{name.module} has the rank {ranks[name.module]} there, and {value.shape[axis]} in {file.name}",
                "write the rank that it was trained with",
            )


def _check_saved(settings: Settings, modules: BaseModules, base: Base) -> None:
    for module in settings.modules_to_save:
        if not any(f".{name}".endswith(f".{module}") for name in modules.names):
            raise settings.error("modules_to_save", f"{module} is no part of {base.name}", OTHER_BASE)
    width = modules.parameters[f"{modules.embedding}.weight"][0]
    for key, tokens in (("trainable_token_indices", settings.trained_tokens), (INVOCATION, settings.invocation)):
        if any(token >= width for token in tokens):
            raise settings.error(
                key,
                f"{max(tokens)} is no token of {base.name}, which has {width}",
                RESIZED,
            )
    indices = settings.trainable_token_indices or []
    for listed in indices.values() if isinstance(indices, dict) else [indices]:
        if len(set(listed)) < len(listed):
            raise settings.error("trainable_token_indices", "it names a token twice", "name each once, and train again")


def _asked_of_peft(settings: Settings, ranks: Mapping[str, int], alphas: Mapping[str, float], base: Base) -> Resolved:
    """PEFT's own account, on a base without weights."""
    from peft import get_peft_model, get_peft_model_state_dict
    from peft.tuners.lora import LoraLayer

    try:
        with warnings.catch_warnings(), as_named():
            warnings.simplefilter("ignore")
            wrapped = get_peft_model(skeleton(base.folder), _peft_config(settings, ranks, alphas, plain_start=True))
            state = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    except (ValueError, RuntimeError, TypeError, NotImplementedError, AttributeError, KeyError, re.error) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{settings.file} does not fit {base.name} ({reason})", OTHER_BASE) from None
    layers = {
        name.removeprefix(PREFIX): module
        for name, module in wrapped.named_modules()
        if isinstance(module, LoraLayer) and "default" in module.scaling
    }
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    return Resolved(
        ranks=ranks,
        alphas=alphas,
        shapes=shapes,
        pairs={name: pair for name in layers if (pair := _pair(name, shapes)) is not None},
        scales={name: float(module.scaling["default"]) for name, module in layers.items()},
        transposed=frozenset(
            name
            for name, module in layers.items()
            if getattr(module, "fan_in_fan_out", False) and name in ranks and not _is_embedding(module)
        ),
        parameters={name: of_parameter(name, module) for name, module in layers.items() if is_parameter(module)},
    )


def _is_embedding(module: Any) -> bool:
    return bool(module.lora_embedding_A)


def _pair(module: str, shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, str] | None:
    for a, b in (("lora_A.weight", "lora_B.weight"), ("lora_embedding_A", "lora_embedding_B")):
        if f"{PREFIX}{module}.{a}" in shapes:
            return f"{PREFIX}{module}.{a}", f"{PREFIX}{module}.{b}"
    return None


def _peft_config(
    settings: Settings,
    ranks: Mapping[str, int],
    alphas: Mapping[str, float],
    *,
    plain_start: bool,
    connector: str | None = None,
) -> Any:
    """Dropout and all that concerns training are left out."""
    from peft import LoraConfig

    indices = settings.trainable_token_indices
    start = settings.init_lora_weights if settings.moves_base and not plain_start else False
    exact = not settings.target_parameters  # PEFT looks up the ranks of parameters under names of its own
    return LoraConfig(
        task_type="CAUSAL_LM",
        inference_mode=True,
        r=settings.r,
        lora_alpha=settings.lora_alpha,
        target_modules=list(ranks),
        rank_pattern=_exactly(ranks, settings.r) if exact else dict(settings.rank_pattern),
        alpha_pattern=_exactly(alphas, settings.lora_alpha) if exact else dict(settings.alpha_pattern),
        use_rslora=settings.use_rslora,
        use_dora=settings.use_dora,
        lora_bias=settings.lora_bias,
        bias=settings.bias,
        fan_in_fan_out=settings.fan_in_fan_out,
        ensure_weight_tying=settings.ensure_weight_tying,
        init_lora_weights=start,
        modules_to_save=[*settings.modules_to_save, *([connector] if connector else [])] or None,
        trainable_token_indices=indices,
        target_parameters=list(settings.target_parameters) or None,
        alora_invocation_tokens=list(settings.invocation) or None,
    )


def _exactly(values: Mapping[str, Any], default: Any) -> dict[str, Any]:
    return {re.escape(name): value for name, value in values.items() if value != default}
