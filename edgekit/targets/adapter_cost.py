"""What adapters cost in decode on a device, by the matrices they change and their rank: an estimate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgekit.project import VIRTUAL, Adapter
from edgekit_devices.adapter_cost import Matrix, Shape, decode_share
from edgekit_devices.profiles import Profile
from edgekit_devices.speed import Estimate, Model
from edgekit_runtime.formats.adapter import SUFFIX_A, SUFFIX_B
from edgekit_runtime.formats.gguf import GgufFile

RANKS = (4, 8, 16, 32, 64)
LEAST_SIDE = 32  # of a matrix: convolutions of recurrent layers are narrower
ROUTER = "ffn_gate_inp"
# Kinds of tensors by what a reader calls them; each is a choice of `targets`.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "all-linear": ("",),
    "feed-forward": ("ffn_",),
    "attention": ("attn_",),
    "q/v": ("attn_q", "attn_v"),
}


@dataclass(frozen=True)
class TargetCost:
    """Decode under adapters of a choice of targets, as a share of the base's, by rank."""

    targets: str
    matrices: int
    shares: Mapping[int, Estimate]


def adaptable_matrices(header: GgufFile) -> tuple[Matrix, ...]:
    """The matrices of a base's blocks that ``targets: all-linear`` means; those of experts are left out, as there."""
    return tuple(
        Matrix(tensor.name, *tensor.shape)
        for tensor in header.tensors.values()
        if tensor.name.startswith("blk.")
        and len(tensor.shape) == 2
        and min(tensor.shape) >= LEAST_SIDE
        and ROUTER not in tensor.name
    )


def adapter_file_shape(header: GgufFile) -> Shape:
    """Of a LoRA GGUF: what its pairs are; no matrix of a prompt adapter."""
    matrices, rank = [], 0
    for name, a in header.tensors.items():
        if name.endswith(SUFFIX_A) and len(a.shape) == 2:
            tensor = name.removesuffix(SUFFIX_A)
            matrices.append(Matrix(tensor, a.shape[0], header.tensors[tensor + SUFFIX_B].shape[1]))
            rank = max(rank, a.shape[1])
    return Shape(tuple(matrices), rank)


def target_costs(
    profile: Profile, model: Model, matrices: Sequence[Matrix], position: int, ranks: Sequence[int] = RANKS
) -> list[TargetCost]:
    """Of each choice that this base has, the costliest first."""
    found = []
    for targets, starts in GROUPS.items():
        chosen = tuple(each for each in matrices if _means(each.kind, starts))
        if chosen:
            shares = {rank: decode_share(profile, model, [Shape(chosen, rank)], position) for rank in ranks}
            found.append(TargetCost(targets, len(chosen), shares))
    return found


def _means(kind: str, starts: Sequence[str]) -> bool:
    return any(kind == start or ((start.endswith("_") or not start) and kind.startswith(start)) for start in starts)


def project_shapes(adapters: Iterable[Adapter], matrices: Sequence[Matrix]) -> dict[str, Shape]:
    """Of a project's adapters, before they are trained, whose targets one of the choices says."""
    found = {}
    for adapter in adapters:
        starts = GROUPS.get(adapter.targets) if isinstance(adapter.targets, str) else None
        if starts is not None and adapter.path is None and adapter.method not in VIRTUAL:
            chosen = tuple(each for each in matrices if _means(each.kind, starts))
            found[adapter.name] = Shape(chosen, adapter.highest_rank)
    return found


def within(costs: Sequence[TargetCost], budget: float) -> list[str]:
    """The choices that keep a share of the base's speed, with the highest rank at which they do."""
    found = []
    for cost in costs:
        ranks = [rank for rank, share in cost.shares.items() if share.value >= budget]
        if ranks:
            found.append(f"{cost.targets} up to rank {max(ranks)}")
    return found
