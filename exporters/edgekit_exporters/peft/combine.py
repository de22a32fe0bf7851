"""Several adapters of one base as one, by PEFT's ``add_weighted_adapter`` on their canonical pairs.

PEFT is asked layer by layer, each around an empty matrix of the layer's size, so no weight of the base is read.
:mod:`~edgekit_exporters.peft.combinations` says what each method computes.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from edgekit_exporters.peft.canonical import CanonicalAdapter, LowRank, folded
from edgekit_exporters.peft.combinations import CAT, DELLA, EXACT, ON_UPDATES, SVD, Combination
from edgekit_exporters.peft.della import della
from edgekit_exporters.peft.settings import MAX_RANK
from edgekit_runtime.errors import InputError


@dataclass(frozen=True)
class Part:
    """One of the adapters: what messages call it, its pairs, its weight, and others for layers in ``of_layers``."""

    name: str
    adapter: CanonicalAdapter
    weight: float
    of_layers: Mapping[str, float] = field(default_factory=dict)

    def weight_of(self, layer: str) -> float:
        """The weight of its update of ``layer``."""
        return self.of_layers.get(layer, self.weight)


def combine(parts: Sequence[Part], how: Combination) -> CanonicalAdapter:
    """One adapter of several; a layer that one part alone changes gets that part's update times its weight.

    Args:
        parts: canonical adapters of one base, each with its weight.
        how: the method and its settings.

    Raises:
        InputError: parts that can't be one: changes of single tokens, invocations that differ, or a rank that is too
            large.
    """
    _check(parts)
    layers: dict[str, LowRank] = {}
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a density of 1 prunes nothing, which PEFT finds worth telling
        torch.manual_seed(how.seed)
        for name in sorted({name for part in parts for name in part.adapter.layers}):
            there = [(part.adapter.layers[name], part.weight_of(name)) for part in parts if name in part.adapter.layers]
            layers[name] = _layer(there, how)
    made = CanonicalAdapter(layers, parts[0].adapter.invocation)
    if made.rank > MAX_RANK:
        raise InputError(f"the combination has rank {made.rank}, more than {MAX_RANK}", "use method svd with a rank")
    return made


def _check(parts: Sequence[Part]) -> None:
    first = parts[0]
    for part in parts:
        tokens = next((name for name, layer in part.adapter.layers.items() if layer.tokens), None)
        if tokens is not None:
            raise InputError(
                f"{part.name} changes single tokens of {tokens}, which have no place in a combination",
                "train it without trainable_token_indices",
            )
        if part.adapter.invocation != first.adapter.invocation:
            raise InputError(
                f"{first.name} and {part.name} don't work from the same place of a prompt on (alora: they have "
                "different invocations, or one has none)",
                "combine adapters of the same invocation",
            )


def _layer(parts: Sequence[tuple[LowRank, float]], how: Combination) -> LowRank:
    """One layer's pair; the experts of a parameter one after the other."""
    like = parts[0][0]
    if not like.stacked:
        return _pair([(layer.a, layer.b) for layer, _ in parts], [weight for _, weight in parts], how, like)
    weights = [weight for _, weight in parts]
    made = [
        _pair([(layer.a[expert], layer.b[expert]) for layer, _ in parts], weights, how, like)
        for expert in range(len(like.a))
    ]
    rank = max(each.rank for each in made)
    whole = [each.padded(rank) for each in made]
    return replace(like, a=torch.stack([each.a for each in whole]), b=torch.stack([each.b for each in whole]))


def _pair(
    pairs: Sequence[tuple[torch.Tensor, torch.Tensor]], weights: Sequence[float], how: Combination, like: LowRank
) -> LowRank:
    rank = how.rank or max(a.shape[0] for a, _ in pairs)
    if len(pairs) == 1 or how.method in (*EXACT, SVD):
        a, b = _by_peft(pairs, weights, replace(how, method=CAT))
        if how.method in ON_UPDATES and a.shape[0] > rank:
            a, b = _closest_of_pair(a, b, rank)
    elif how.method == DELLA:
        updates = [(b @ a) for a, b in pairs]
        a, b = _closest(della(updates, weights, how.density), rank)
    else:
        a, b = _by_peft(pairs, weights, replace(how, rank=rank))
    return folded(a, b, transposed=like.transposed, embedding=like.embedding)


class _Layer(torch.nn.Module):
    """A model of one layer, whose matrix is never read."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layer = torch.nn.utils.skip_init(torch.nn.Linear, inputs, outputs, bias=False)


def _by_peft(
    pairs: Sequence[tuple[torch.Tensor, torch.Tensor]], weights: Sequence[float], how: Combination
) -> tuple[torch.Tensor, torch.Tensor]:
    """A [rank, in] and B [out, rank] of PEFT's combination of these pairs, which are its adapters "0", "1", …

    Methods that work on A and B by themselves want equal ranks, so smaller pairs are filled with zeros.
    """
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    most = max(a.shape[0] for a, _ in pairs)
    filled = how.method not in (CAT, *ON_UPDATES)
    model, names = _Layer(pairs[0][0].shape[1], pairs[0][1].shape[0]), [str(n) for n in range(len(pairs))]
    lora = None
    for name, (a, b) in zip(names, pairs, strict=True):
        pair = LowRank(a, b).padded(most) if filled else LowRank(a, b)
        config = LoraConfig(r=pair.rank, lora_alpha=pair.rank, target_modules=["layer"])
        if lora is None:
            lora = LoraModel(model, config, name)
        else:
            lora.peft_config[name] = config
            lora.inject_adapter(model, name)
        model.layer.lora_A[name].weight.data, model.layer.lora_B[name].weight.data = pair.a, pair.b
    assert lora is not None  # there is at least one pair
    lora.add_weighted_adapter(
        names,
        list(weights),
        "combined",
        combination_type=how.method,
        svd_rank=how.rank,
        svd_full_matrices=False,
        density=how.density,
    )
    return model.layer.lora_A["combined"].weight.data, model.layer.lora_B["combined"].weight.data


def _closest(update: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The pair of ``rank`` that is closest to an update [out, in] (Eckart and Young 1936)."""
    u, s, v = torch.linalg.svd(update, full_matrices=False)
    return v[:rank], u[:, :rank] * s[:rank]


def _closest_of_pair(a: torch.Tensor, b: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The same of ``b @ a``: all of it lies in the spaces of A's rows and B's columns, so the matrix stays small."""
    q_a, r_a = torch.linalg.qr(a.double().mT)
    q_b, r_b = torch.linalg.qr(b.double())
    small_a, small_b = _closest(r_b @ r_a.mT, rank)
    return small_a @ q_a.mT, q_b @ small_b
