"""Every low-rank additive PEFT adapter as plain A, B pairs with the scale folded in.

Converters and engines read ``lora_alpha / r`` and nothing else of PEFT's settings.  rsLoRA's alpha/√r, alpha and
rank patterns, or a per-layer rank would be lost without a word.  So PEFT itself is asked, on a base without weights,
what scale it gives each layer, and the pairs are rewritten such that ``delta W = B @ A`` with alpha equal to rank.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from edgekit_exporters.base import Base
from edgekit_exporters.hf.float_model import load_float
from edgekit_exporters.peft.as_named import as_named
from edgekit_exporters.peft.base_modules import base_modules, base_weights
from edgekit_exporters.peft.intake import TakenAdapter, take_in
from edgekit_exporters.peft.names import PREFIX
from edgekit_exporters.peft.of_parameters import OfParameter
from edgekit_exporters.peft.ways_out import NotAdditive, refuse_what_is_not_additive
from edgekit_runtime.errors import InputError

__all__ = ["CanonicalAdapter", "LowRank", "NotAdditive", "canonicalize", "folded"]

F16_MAX = 65504.0
F16_LEAST = 2.0**-14  # the smallest number that F16 keeps all its digits of
WELL_SCALED = (2.0**-8, 2.0**8)  # of the largest number of a row of A or a column of B


@dataclass(frozen=True)
class LowRank:
    """One layer's update: ``delta W = b @ a``, A [rank, in], B [out, rank], float32.

    Of a parameter that holds the matrices of all experts, A is [experts, rank, in] and B [experts, out, rank].
    ``transposed`` marks weights that are stored [in, out] (GPT-2's Conv1D, gpt-oss's experts); ``embedding`` those
    whose A is looked up by token, and whose update is ``(b @ a).T``; ``tokens`` those that change single tokens, one
    a rank.
    """

    a: torch.Tensor
    b: torch.Tensor
    transposed: bool = False
    embedding: bool = False
    tokens: bool = False

    @property
    def rank(self) -> int:
        """Inner dimension."""
        return int(self.a.shape[-2])

    @property
    def stacked(self) -> bool:
        """Whether it holds the pairs of all experts."""
        return self.a.dim() == 3

    @property
    def fits_f16(self) -> bool:
        """Whether F16 keeps both: nothing becomes infinite, and no row or column of them is lost among the smallest."""
        for size in (*_largest(self.a, -1).flatten(), *_largest(self.b, -2).flatten()):
            if size > F16_MAX or 0 < size < F16_LEAST:
                return False
        return True

    def padded(self, rank: int) -> LowRank:
        """The same update at a larger rank, filled with zeros: one file has one rank."""
        missing = rank - self.rank
        pad = torch.nn.functional.pad
        return replace(self, a=pad(self.a, (0, 0, 0, missing)), b=pad(self.b, (0, missing)))


def folded(
    a: torch.Tensor, b: torch.Tensor, scale: float = 1.0, *, transposed: bool = False, embedding: bool = False
) -> LowRank:
    """The pair ``scale * b @ a`` in float32, with powers of two moved between A and B where one of them is far off.

    A power of two changes no digit, so the product stays what it was; and what files hold at half precision neither
    becomes infinite nor vanishes.

    Raises:
        OverflowError: an update too large for float32.
    """
    a, b = a.double(), b.double() * scale
    size_a, size_b = _largest(a, -1), _largest(b, -2)
    low, high = WELL_SCALED
    off = (size_a < low) | (size_a > high) | (size_b < low) | (size_b > high)
    move = off & (size_a > 0) & (size_b > 0)
    power = torch.zeros_like(size_a)
    power[move] = torch.round((torch.log2(size_b[move]) - torch.log2(size_a[move])) / 2)
    factor = torch.exp2(power)
    a, b = (a * factor[..., None]).float(), (b / factor[..., None, :]).float()
    if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
        raise OverflowError("the update is too large for float32")
    return LowRank(a, b, transposed, embedding)


def _largest(matrix: torch.Tensor, axis: int) -> torch.Tensor:
    return matrix.abs().amax(axis)


@dataclass(frozen=True)
class CanonicalAdapter:
    """An adapter as pairs by module name (``model.layers.0.self_attn.q_proj``), those of experts by parameter name.

    ``invocation`` are the token ids from which an activated LoRA works, none for any other.
    """

    layers: dict[str, LowRank]
    invocation: tuple[int, ...] = ()

    virtual_tokens = None

    @property
    def rank(self) -> int:
        """The largest rank of any layer."""
        return max(layer.rank for layer in self.layers.values())

    @property
    def targets(self) -> list[str]:
        """Last parts of the names, sorted: ``["down_proj", "q_proj", …]``."""
        return sorted({name.rpartition(".")[2] for name in self.layers})

    @property
    def fits_f16(self) -> bool:
        """Whether a file at half precision keeps every pair."""
        return all(layer.fits_f16 for layer in self.layers.values())


def canonicalize(path: Path, base: Base) -> CanonicalAdapter:
    """Take an adapter in and fold every scale into B.

    PiSSA and OLoRA move a part of each weight into the adapter before training, ``W = W' + s B0 A0``.  PEFT computes
    that part from the base again when it loads such an adapter, and so do we: the update of the original base is
    ``s B A - s B0 A0``, a pair of twice the rank.

    Raises:
        InputError: not a sound adapter of this base, or (a NotAdditive) an update that isn't ``B @ A`` with a constant
            scale: DoRA, trained biases, whole modules.
    """
    adapter = take_in(path, base)
    refuse_what_is_not_additive(adapter)
    starts = _starts(adapter) if adapter.settings.moves_base else {}
    resolved = adapter.resolved
    layers: dict[str, LowRank] = {}
    for name, (name_a, name_b) in resolved.pairs.items():
        a, b, scale = adapter.weights[name_a].double(), adapter.weights[name_b].double(), resolved.scales[name]
        if name in starts:
            a0, b0 = starts[name]
            a, b = torch.cat([a, a0.double()]), torch.cat([b, -b0.double()], 1)
        transposed, embedding = name in resolved.transposed, name_a.endswith("lora_embedding_A")
        of = resolved.parameters.get(name)
        if of is not None:
            a, b = _as_layer(a, b, of)
            name, transposed, embedding = of.name, of.flipped and not of.embedding, of.embedding
        try:
            layers[name] = folded(a, b, scale, transposed=transposed, embedding=embedding)
        except OverflowError:
            raise InputError(
                f"{adapter.path}: its update of {name} is too large for any float type of a device",
                "the training diverged: take an earlier checkpoint",
            ) from None
    tokens = _of_tokens(adapter)
    rank = max((layer.rank for layer in layers.values()), default=1)
    layers |= {name: layer.padded(_doubled(rank, layer.rank)) for name, layer in tokens.items()}
    return CanonicalAdapter(layers, adapter.settings.invocation)


def _doubled(rank: int, least: int) -> int:
    """``rank`` times a power of two, which costs no digit where pairs of both are in one file: at least ``least``."""
    while rank < least:
        rank *= 2
    return rank


def _as_layer(a: torch.Tensor, b: torch.Tensor, of: OfParameter) -> tuple[torch.Tensor, torch.Tensor]:
    """PEFT's pair around a parameter as a layer's; that of experts is A [experts x rank, in], B [out, rank x experts].

    Which of the two runs along the parameter's last axis PEFT decides by itself; here ``flipped`` says so.
    """
    if of.stacked:
        a = a.reshape(of.experts, -1, a.shape[-1])
        b = b.reshape(b.shape[0], -1, of.experts).permute(2, 0, 1)
        return a, b
    return (b.mT, a.mT) if of.flipped else (a, b)


def _of_tokens(adapter: TakenAdapter) -> dict[str, LowRank]:
    """What trained tokens differ in from the base's, as pairs: a rank for each, which finds it and adds to it."""
    made = {}
    modules = base_modules(adapter.base)
    for module, (key, tokens) in adapter.trained_rows.items():
        own = base_weights(adapter.base, f"{module}.weight").float()
        change = adapter.weights[key].float() - own[tokens]
        found = torch.zeros(len(tokens), len(own))
        found[range(len(tokens)), tokens] = 1.0
        if module == modules.embedding:
            made[module] = replace(folded(found, change.mT, embedding=True), tokens=True)
        else:
            made[module] = replace(folded(change, found.mT), tokens=True)
    return made


def _starts(adapter: TakenAdapter) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """A and B of each layer before training, which PEFT computes from the base's weights."""
    from peft import get_peft_model
    from peft.tuners.lora import LoraLayer

    model = load_float(adapter.base.folder)
    with as_named():
        wrapped = get_peft_model(model, adapter.peft_config())
    return {
        name.removeprefix(PREFIX): (module.lora_A["default"].weight.detach(), module.lora_B["default"].weight.detach())
        for name, module in wrapped.named_modules()
        if isinstance(module, LoraLayer) and "default" in module.lora_A
    }
