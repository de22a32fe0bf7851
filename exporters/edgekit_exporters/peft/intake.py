"""The one way in for adapters: whatever the form, what comes out has been checked against its base, tensor by tensor.

Merging, separate files, evaluation and the proof's reference all attach what :func:`take_in` gives.  After it nothing
can be missing, left over, of another shape or not finite: what PEFT only warns of is refused here.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from edgekit_exporters.base import Base
from edgekit_exporters.peft.as_lora import as_lora
from edgekit_exporters.peft.as_named import as_named
from edgekit_exporters.peft.base_modules import BaseModules, base_modules
from edgekit_exporters.peft.files import AdapterFiles, find_adapter, stamp, tell_once
from edgekit_exporters.peft.lora_gguf import read_lora_gguf
from edgekit_exporters.peft.names import PREFIX, TensorName, normalization, understand
from edgekit_exporters.peft.places import Resolved, resolve
from edgekit_exporters.peft.prompts import TakenPrompt, attach_prompt, checked_prompt, is_prompt
from edgekit_exporters.peft.settings import Settings, checked_settings
from edgekit_runtime.errors import EdgekitError, InputError

CONNECTOR = "connector"  # PEFT's modules_to_save of an image base whose connector was trained, too
TOKENS = ".token_adapter.trainable_tokens_delta"  # end of the names of tokens' rows
OTHER_BASE = "use the base that it was trained on"
# Types that torch computes with; those of two numbers in a byte, or of scales alone, it only carries.
NUMBERS = (
    *(torch.float32, torch.float16, torch.bfloat16, torch.float64),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz),
)


@dataclass(frozen=True)
class TakenAdapter:
    """An adapter that has been checked against its base.

    Attributes:
        path: what the user named, for messages.
        base: that it fits.
        settings: what its config says.
        resolved: which modules it adapts, with rank and alpha of each.
        weights: its tensors by the names that PEFT gives them on this base; not to be changed.
        connector: the trained connector of an image base, [width, inputs], or None.
    """

    path: Path
    base: Base
    settings: Settings
    resolved: Resolved
    weights: dict[str, torch.Tensor]
    connector: torch.Tensor | None = None

    @property
    def trained_rows(self) -> dict[str, tuple[str, list[int]]]:
        """Modules of which single tokens were trained: the name of the tensor that holds them, and which they are."""
        indices = self.settings.trainable_token_indices or []
        found = {}
        for key in self.weights:
            if not key.endswith(TOKENS):
                continue
            module = key.removeprefix(PREFIX).removesuffix(TOKENS)
            named = indices.items() if isinstance(indices, dict) else [(module, indices)]
            tokens = next(each for name, each in named if f".{module}".endswith(f".{name}"))
            found[module] = (key, tokens)
        return found

    def peft_config(self, *, plain_start: bool = False) -> Any:
        """PEFT's configuration of it, every module by its full name.

        Args:
            plain_start: leave out a start that is taken out of the base's weights.
        """
        return self.resolved.config(
            self.settings, plain_start=plain_start, connector=CONNECTOR if self.connector is not None else None
        )


Taken = TakenAdapter | TakenPrompt


def take_in(path: Path, base: Base) -> TakenAdapter:
    """Read the adapter that ``path`` names and check it against ``base``; see :func:`find_adapter` for what it may be.

    Raises:
        InputError: not a sound LoRA adapter, or not one of this base; the message names file and key or tensor.
    """
    taken = take_in_any(path, base)
    if isinstance(taken, TakenPrompt):
        raise InputError(
            f"{path} is a prompt adapter: its {taken.virtual_tokens} virtual tokens stand before the prompt, and no"
            " weight of the base changes",
            "export it with --mode separate",
        )
    return taken


def take_in_any(path: Path, base: Base) -> Taken:
    """As :func:`take_in`, prompt adapters too."""
    files = find_adapter(path)
    return _taken(files, tuple(stamp(files)), base)


@functools.lru_cache(maxsize=4)  # a command takes an adapter in several times; the stamp changes with the files
def _taken(files: AdapterFiles, _stamp: tuple[tuple[str, int, int], ...], base: Base) -> Taken:
    modules = base_modules(base)
    if files.is_gguf:
        raw, tensors = read_lora_gguf(files.weights_file, base)
    else:
        raw, tensors = files.config(), files.weights()
    _check_finite(tensors, files.weights_file)
    if is_prompt(raw):
        return _taken_prompt(raw, tensors, modules, files, base)
    raw, tensors = as_lora(raw, tensors, modules.parameters, files.config_file or files.weights_file)
    settings = checked_settings(raw, files.config_file or files.weights_file)
    tensors = _once(tensors)
    settings, tensors, connector = _without_connector(settings, tensors, files.weights_file)
    names = understand(tensors, modules.names, modules.weighted, files.weights_file)
    told = normalization(names)
    if told is not None:
        tell_once(f"{files.weights_file}: {told}")
    resolved = resolve(settings, names, tensors, modules, files.weights_file, base)
    weights = _placed(resolved, names, tensors, modules, files, base)
    return TakenAdapter(
        path=files.path, base=base, settings=settings, resolved=resolved, weights=weights, connector=connector
    )


def is_dead(adapter: TakenAdapter) -> bool:
    """Whether the adapter changes nothing, by its tensors alone: every product ``B @ A`` is exactly zero.

    An adapter that trained more than pairs (magnitudes, biases, whole modules) isn't called dead here, nor one whose
    start was taken out of the base: the logits tell of these.
    """
    if adapter.settings.moves_base or adapter.connector is not None:
        return False
    pairs = dict(adapter.resolved.pairs)
    if {key for pair in pairs.values() for key in pair} != set(adapter.weights):
        return False
    return not any((adapter.weights[b].double() @ adapter.weights[a].double()).any() for a, b in pairs.values())


def _taken_prompt(
    raw: dict[str, Any], tensors: dict[str, torch.Tensor], modules: BaseModules, files: AdapterFiles, base: Base
) -> TakenPrompt:
    if base.vision is not None:
        raise InputError(
            f"{files.path} is a prompt adapter, and PEFT puts images of {base.name} in the places that the virtual"
            " tokens shift",
            "train it as LoRA",
        )
    width = modules.parameters[f"{modules.embedding}.weight"][1]
    config_file = files.config_file or files.weights_file
    return TakenPrompt(files.path, base, checked_prompt(raw, tensors, width, config_file, files.weights_file))


def attach(model: Any, adapter: Taken) -> Any:
    """``model``, which is the adapter's base at any precision, wrapped by PEFT with the adapter at work.

    Raises:
        InputError: the model can't carry it as it is loaded here.
    """
    from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    if isinstance(adapter, TakenPrompt):
        return attach_prompt(model, adapter)
    weights = dict(adapter.weights)
    if adapter.connector is not None:
        weights[next(_connector_keys(model))] = adapter.connector
    try:
        with as_named():
            wrapped = get_peft_model(model, adapter.peft_config())
        set_peft_model_state_dict(wrapped, weights)
    except (RuntimeError, ValueError, TypeError, NotImplementedError, KeyError) as error:
        reason = next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), "no reason given")
        raise InputError(
            f"the adapter in {adapter.path} can't be attached to its base ({reason})", OTHER_BASE
        ) from None
    loaded = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    for key in loaded.keys() | weights.keys():
        if key not in loaded or key not in weights or not _same(loaded[key], weights[key]):
            raise EdgekitError(f"PEFT did not load {key} of {adapter.path} as it is in the file")
    return wrapped


def _same(loaded: torch.Tensor, written: torch.Tensor) -> bool:
    return bool(torch.equal(loaded.detach().cpu(), written.to(loaded.dtype)))


def _connector_keys(model: Any) -> Any:
    yield from (f"{PREFIX}{name}.weight" for name, _ in model.named_modules() if name.endswith(f".{CONNECTOR}"))
    raise EdgekitError("this model has no connector to load the adapter's into")


def _check_finite(tensors: dict[str, torch.Tensor], file: Path) -> None:
    if not tensors:
        raise InputError(f"{file} holds no tensors", "save the adapter again")
    for name, value in tensors.items():
        if value.dtype not in NUMBERS:
            raise InputError(
                f"{file}: {name} holds {str(value.dtype).removeprefix('torch.')}, none of the floats that adapters "
                "are saved as",
                "save the adapter as float32, float16 or bfloat16",
            )
        if not torch.isfinite(value.float()).all():
            raise InputError(
                f"{file}: {name} holds numbers that are not finite (NaN or infinity)",
                "the training diverged: take an earlier checkpoint, or train again with a lower learning rate",
            )


def _once(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """PEFT writes a trained embedding of a resized vocabulary twice: as itself, and under its wrapper's name."""

    def is_copy(name: str, value: torch.Tensor) -> bool:
        own = tensors.get(name.replace(".modules_to_save.", "."))
        return ".modules_to_save." in name and own is not None and torch.equal(own, value)

    return {name: value for name, value in tensors.items() if not is_copy(name, value)}


def _without_connector(
    settings: Settings, tensors: dict[str, torch.Tensor], file: Path
) -> tuple[Settings, dict[str, torch.Tensor], torch.Tensor | None]:
    """The connector is no part of the text model: it goes into the projector file."""
    if settings.modules_to_save != (CONNECTOR,):
        return settings, tensors, None
    found = {name: value for name, value in tensors.items() if is_connector(name)}
    if len(found) != 1:
        raise InputError(f"{file} holds no trained connector, and its config says so", "train it again")
    rest = {name: value for name, value in tensors.items() if name not in found}
    return replace(settings, modules_to_save=()), rest, next(iter(found.values())).float()


def is_connector(name: str) -> bool:
    """Whether a tensor of an adapter is a trained connector."""
    return name.endswith(f".{CONNECTOR}.weight")


def _placed(
    resolved: Resolved,
    names: list[TensorName],
    tensors: dict[str, torch.Tensor],
    modules: BaseModules,
    files: AdapterFiles,
    base: Base,
) -> dict[str, torch.Tensor]:
    """The tensors by PEFT's names: each used once, each place filled, copies of the base's weights left out."""
    file = files.weights_file
    weights: dict[str, torch.Tensor] = {}
    for name in names:
        value, shape = tensors[name.written], resolved.shapes.get(name.key)
        if shape is None:
            if f"{PREFIX}{name.module}.{name.part.removeprefix('base_layer.')}" in resolved.shapes:
                continue  # what the trained one replaces
            modules.check_unchanged(name, value, file, base)
            continue
        if tuple(value.shape) != shape:
            modules.check_vocabulary(name, value, file, base)
            raise InputError(
                f"{file} does not fit {base.name}: {name.written} is {list(value.shape)}, and has to be {list(shape)}",
                OTHER_BASE,
            )
        weights[name.key] = value
    missing = [key for key in resolved.shapes if key not in weights]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise InputError(
            f"{file} has no tensor {missing[0]}{more}, which its config says that it trained",
            "it is incomplete, or belongs to another base: save it again",
        )
    return weights
