"""What can't become a separate file or a part of the base's weights, and what helps: advice that has been checked."""

from __future__ import annotations

from collections.abc import Iterable

from edgekit_exporters.peft.base_modules import base_modules
from edgekit_exporters.peft.intake import TakenAdapter
from edgekit_exporters.peft.names import PREFIX
from edgekit_runtime.errors import InputError


class NotAdditive(InputError):
    """The adapter isn't a sum of ``B @ A`` and the base: it can be merged or refitted, or neither."""


def refuse_what_is_not_additive(adapter: TakenAdapter) -> None:
    """Refuse what no A and B stand for.

    Raises:
        NotAdditive: with the reason, and the way out that this adapter has.
    """
    settings = adapter.settings
    trained = [key for key in adapter.weights if key not in _explained(adapter)]
    saved = ", ".join(settings.modules_to_save)
    reasons = (
        (settings.use_dora, "DoRA rescales whole weight rows"),
        (saved, f"it replaces {saved} as a whole (modules_to_save), and an engine adds to matrices alone"),
        (settings.lora_bias, "it trains biases (lora_bias)"),
        (settings.bias != "none" and trained, "it trains biases (bias)"),
    )
    for is_so, reason in reasons:
        if is_so:
            raise NotAdditive(f"{adapter.path} can't be a separate adapter: {reason}", way_out(adapter))
    if trained:
        raise NotAdditive(f"{adapter.path} can't be a separate adapter: it trains {trained[0]}", way_out(adapter))


def check_mergeable(adapter: TakenAdapter) -> None:
    """Refuse what can't become a part of the base's weights.

    Raises:
        InputError: an activated LoRA, one with a trained connector, or biases where the base has none.
    """
    reason = _unmergeable(adapter)
    if reason is not None:
        hint = "train without lora_bias" if adapter.settings.lora_bias else way_to_separate(adapter)
        raise InputError(f"{adapter.path} {reason}", hint)


def refuse_ends(adapter: TakenAdapter, layers: Iterable[str], *, onnx: bool) -> None:
    """Refuse pairs that the engine has no place for: on the embedding, the output matrix, experts.

    llama.cpp keeps one tensor for embedding and output in a tied base, and adapts it as both or not at all; an ONNX
    graph takes adapters in the linear layers of its decoder.

    Raises:
        InputError: there is such a pair.
    """
    modules = base_modules(adapter.base)
    inner = [name for name in layers if onnx and name in modules.parameters][:1]  # the first expert stands for all
    ends = [name for name in layers if name in (modules.embedding, modules.output)] + inner
    if not ends or not (onnx or modules.tied):
        return
    reason = (
        "an ONNX base takes adapters in linear layers of its decoder alone"
        if onnx
        else f"{adapter.base.name} has one matrix for embedding and output, which llama.cpp can't adapt as one of them"
    )
    raise InputError(
        f"{adapter.path} can't be a separate adapter: it adapts {' and '.join(ends)}, and {reason}",
        way_out(adapter, instead=f"train without {' and '.join(name.rpartition('.')[2] for name in ends)}"),
    )


def way_out(adapter: TakenAdapter, instead: str | None = None) -> str:
    """What to do with an adapter that can't be a separate file.

    Args:
        adapter: the adapter.
        instead: what helps where it can't be merged either.
    """
    if _unmergeable(adapter) is not None:
        return instead or f"train without {_what_hinders(adapter)}"
    if instead is not None or not _refittable(adapter):
        return "export it with --mode merged"
    return "export it with --mode merged, or --refit-rank 32 for the closest LoRA"


def _explained(adapter: TakenAdapter) -> set[str]:
    """Names of the tensors that pairs stand for."""
    rows = {key for key, _ in adapter.trained_rows.values()}
    return rows | {name for pair in adapter.resolved.pairs.values() for name in pair}


def way_to_separate(adapter: TakenAdapter) -> str:
    """What to do with an adapter that can't be merged: a separate file where it can be one."""
    try:
        refuse_what_is_not_additive(adapter)
        refuse_ends(adapter, (*adapter.resolved.pairs, *adapter.trained_rows), onnx=False)
    except InputError as error:
        return error.hint or "train it as plain LoRA"
    return "export it with --mode separate"


def _unmergeable(adapter: TakenAdapter) -> str | None:
    """Why it can't be merged."""
    settings = adapter.settings
    if settings.invocation:
        return "is an activated LoRA: it works from its invocation on, and weights always work"
    if adapter.connector is not None:
        return "has trained the connector, which isn't merged"
    if settings.lora_bias:
        parameters = base_modules(adapter.base).parameters
        bare = [name for name in adapter.resolved.pairs if f"{name}.bias" not in parameters]
        if bare:
            return f"trains biases (lora_bias), and {bare[0]} of {adapter.base.name} has none to add them to"
    return None


def _what_hinders(adapter: TakenAdapter) -> str:
    settings = adapter.settings
    keys = ("use_dora", "modules_to_save", "lora_bias", "trainable_token_indices", "target_parameters")
    hindering = [key for key in keys if getattr(settings, key)] + (["bias"] if settings.bias != "none" else [])
    return " and ".join(hindering)


def _refittable(adapter: TakenAdapter) -> bool:
    """Whether it changes weights of linear layers alone, tensors that another pair can stand for."""
    settings = adapter.settings
    modules = base_modules(adapter.base)
    if settings.modules_to_save or settings.trainable_token_indices or settings.lora_bias:
        return False
    if any(of.stacked for of in adapter.resolved.parameters.values()):
        return False
    if any(key.endswith(".bias") for key in adapter.weights):
        return False
    names = [key.removeprefix(PREFIX) for key in adapter.weights]
    return not any(name.startswith((f"{modules.embedding}.", f"{modules.output}.")) for name in names)
