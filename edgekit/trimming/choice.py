"""Which units of an adapter stay: those that contribute most for what they cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edgekit_devices.adapter_cost import Matrix
from edgekit_exporters.conversion.tensor_map import TensorMap
from edgekit_runtime.errors import InputError

ROUNDS = 2  # what a unit contributes changes as others go


@dataclass(frozen=True)
class Unit:
    """What goes or stays together: modules whose weights one tensor holds, or one module in several tensors."""

    modules: tuple[str, ...]
    matrices: tuple[Matrix, ...]


def units_of(modules: Sequence[str], mapping: TensorMap) -> list[Unit]:
    """The units of an adapter's modules.

    Raises:
        InputError: a module that the engine has no place for.
    """
    found: dict[tuple[str, ...], list[str]] = {}
    for module in modules:
        tensors = tuple(sorted({piece.tensor for piece in mapping.adaptable(module)}))
        if not tensors:
            raise InputError(f"llama.cpp has no place for a change of {module}", "name targets that it can adapt")
        found.setdefault(tensors, []).append(module)
    return [
        Unit(tuple(names), tuple(Matrix(each, *reversed(mapping.shapes[each][-2:])) for each in tensors))
        for tensors, names in found.items()
    ]


def chosen(gains: Mapping[Unit, float], costs: Mapping[Unit, float], allowed: float) -> list[Unit]:
    """The units to keep: those of most gain for their cost, as long as they are within ``allowed`` together.

    Args:
        gains: what each unit contributes.
        costs: what each costs, in the unit of ``allowed``.
        allowed: what all that stay may cost together.
    """
    order = sorted(gains, key=lambda unit: gains[unit] / costs[unit], reverse=True)
    kept, spent = set[Unit](), 0.0
    for unit in order:
        if gains[unit] > 0 and spent + costs[unit] <= allowed:
            kept.add(unit)
            spent += costs[unit]
    return [unit for unit in gains if unit in kept]


def search(
    units: Sequence[Unit],
    costs: Mapping[Unit, float],
    allowed: float,
    measure: Callable[[Sequence[Unit]], Mapping[Unit, float]],
) -> list[Unit]:
    """Leave units out in a few rounds, and measure before each what those that are left contribute.

    Args:
        units: of the adapter.
        costs: of each, as in :func:`chosen`.
        allowed: likewise.
        measure: what each of some units contributes while only these are there.

    Raises:
        InputError: not a single unit is within ``allowed``, or none contributes anything.
    """
    total = sum(costs[unit] for unit in units)
    if total <= allowed:
        return list(units)
    if min(costs[unit] for unit in units) > allowed:
        raise InputError(
            "the decode budget leaves no room for a single matrix", "lower decode_budget, or take a lower rank"
        )
    kept = list(units)
    for number in range(1, ROUNDS + 1):
        step = total * (allowed / total) ** (number / ROUNDS)
        kept = chosen(measure(kept), costs, step)
        if not kept:
            raise InputError("no matrix of the adapter lowers the loss of its training rows", "train it longer")
    return kept
