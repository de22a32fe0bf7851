"""Base plus adapter as one float model: PEFT does the arithmetic, whatever the adapter's kind."""

from __future__ import annotations

import contextlib
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from edgekit_exporters.base import Base
from edgekit_exporters.hf.float_model import load_float
from edgekit_exporters.peft.base_modules import base_modules
from edgekit_exporters.peft.intake import TakenAdapter, attach, is_dead, take_in
from edgekit_exporters.peft.ways_out import check_mergeable, way_to_separate
from edgekit_runtime.errors import EdgekitError, InputError

TOKENS = 24  # that merged and unmerged model are compared on
NOISE = 1e-4  # of the largest logit: what another order of summation moves logits by
EFFECT = 0.02  # of what the adapter moves logits by


def merge_to_folder(base: Base, adapters: Sequence[Path], destination: Path) -> None:
    """Write a Hugging Face folder in float32 with all ``adapters`` merged in, in this order.

    What was written is loaded again and has to answer as base and adapter do unmerged.  A base whose output matrix is
    its embedding is untied where an adapter changes one of the two.

    Raises:
        InputError: an adapter that isn't sound, doesn't fit the base or changes nothing; that works in a part of the
            prompt only, or has trained an image base's connector.
    """
    from transformers import AutoTokenizer

    taken = [take_in(path, base) for path in adapters]
    _check_order(taken)
    ids = _probe(base, taken)
    model = load_float(base.folder)
    wanted = _logits(model, ids)
    for adapter in taken:
        model, wanted = _merged(model, adapter, ids, wanted)
    model.save_pretrained(destination)
    AutoTokenizer.from_pretrained(base.folder, trust_remote_code=False).save_pretrained(destination)
    del model
    written = load_float(destination)
    off = float((_logits(written, ids) - wanted).abs().max())
    if not off <= NOISE * float(wanted.abs().max()):
        raise EdgekitError(
            f"the merged model in {destination} answers otherwise than before it was written ({off:.2g})"
        )


def merged_model(model: Any, adapter: TakenAdapter) -> Any:
    """``model``, the adapter's base in float32, with the adapter in its weights; weights that were shared are untied.

    Raises:
        InputError: what can't be merged.
    """
    check_mergeable(adapter)
    with _quiet():
        wrapped = attach(model, adapter).eval()
        _untie(wrapped)
        return _unloaded(wrapped, adapter)


def _merged(model: Any, adapter: TakenAdapter, ids: torch.Tensor, before: torch.Tensor) -> tuple[Any, torch.Tensor]:
    """The merged model and its logits, which have been compared with those of base and adapter unmerged."""
    check_mergeable(adapter)
    with _quiet():
        wrapped = attach(model, adapter).eval()
        wanted = _logits(wrapped, ids)
        if not torch.isfinite(wanted).all():
            raise InputError(
                f"{adapter.path} makes {adapter.base.name} answer with numbers that are not finite",
                "the training diverged: take an earlier checkpoint",
            )
        _untie(wrapped)
        merged = _unloaded(wrapped, adapter)
    found = _logits(merged, ids)
    effect = float((wanted - before).abs().max())
    if effect == 0 and (is_dead(adapter) or _is_base(merged, adapter.base)):
        raise InputError(
            f"{adapter.path} changes nothing in {adapter.base.name}", "it was not trained, or lost: train it"
        )
    off = float((found - wanted).abs().max())
    if not off <= max(NOISE * float(wanted.abs().max()), EFFECT * effect):
        raise InputError(
            f"{adapter.path} can't be merged exactly: logits are off by {off:.3g}, and the adapter moves them by "
            f"{effect:.3g}",
            _instead(adapter),
        )
    return merged, found


def _unloaded(wrapped: Any, adapter: TakenAdapter) -> Any:
    try:
        merged = wrapped.merge_and_unload(safe_merge=True)
    except (ValueError, NotImplementedError, RuntimeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{adapter.path} can't be merged ({reason})", _instead(adapter)) from None
    output, embedding = merged.get_output_embeddings(), merged.get_input_embeddings()
    merged.config.tie_word_embeddings = bool(output is not None and output.weight is embedding.weight)
    return merged


def _instead(adapter: TakenAdapter) -> str:
    hint = way_to_separate(adapter)
    return "train it as plain LoRA" if "merged" in hint else hint


def _check_order(adapters: Sequence[TakenAdapter]) -> None:
    for adapter in adapters:
        check_mergeable(adapter)
    for adapter in adapters[1:]:
        if adapter.settings.moves_base:
            start = adapter.settings.init_lora_weights
            raise InputError(
                f"{adapter.path} starts from the base's own weights ({start}), which the adapters before it change",
                "name it first",
            )


def _untie(wrapped: Any) -> None:
    """Give each weight that an adapter changes, and that something else uses too, memory of its own."""
    from peft.tuners.lora import LoraLayer

    uses = Counter(id(parameter) for module in wrapped.modules() for parameter in module.parameters(recurse=False))
    for module in wrapped.modules():
        if not isinstance(module, LoraLayer):
            continue
        layer = module.get_base_layer()
        weight = getattr(layer, "weight", None)
        if weight is not None and uses[id(weight)] > 1:
            uses[id(weight)] -= 1
            layer.weight = torch.nn.Parameter(weight.detach().clone(), requires_grad=False)


def _is_base(merged: Any, base: Base) -> bool:
    own = load_float(base.folder)
    before, after = (dict(model.named_parameters(remove_duplicate=False)) for model in (own, merged))
    return before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def _probe(base: Base, adapters: Sequence[TakenAdapter]) -> torch.Tensor:
    """Tokens from the whole vocabulary, always the same, and such as an adapter has trained alone."""
    config = base_modules(base).config
    length = min(TOKENS, config.max_position_embeddings)
    ids = torch.randint(config.vocab_size, (1, length), generator=torch.Generator().manual_seed(0))
    trained = [token for adapter in adapters for token in adapter.settings.trained_tokens][: length // 2]
    if trained:
        ids[0, : len(trained)] = torch.tensor(trained)
    return ids


def _logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=ids).logits.float()
    return logits


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """PEFT warns of tied weights, which are untied here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
