"""What a LoRA adapter costs in decode, before there is one: from the shapes of the matrices that it changes.

llama.cpp computes ``x W + scale (x A) B`` with four more graph nodes than ``x W`` (``build_lora_mm``): two products, a
scale and a sum.  For one token they are so small that reading A and B is the least of it.  Time goes into starting each
node, into a dot product for each row of A and B, and into the weights:

    extra = node x nodes + row x rows + weight x weights

Rows are those of A (the rank) and of B (the matrix's outputs).  ``benchmarks/adapter_cost.py`` measures adapters of
many shapes and fits the three prices.  They are kept in clock cycles, which is how they come to other CPUs: an
estimate.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from edgekit_devices.profiles import Profile
from edgekit_devices.speed import FALLBACK_CLOCK_MHZ, Estimate, Model, decode_tps, speed_of

NODES = 4
NODE_CYCLES, ROW_CYCLES, WEIGHT_CYCLES = 2000.0, 20.0, 0.5
# How far the extra time may be below and above, as a factor.
RANGE = (0.5, 2.0)


@dataclass(frozen=True)
class Matrix:
    """A matrix of a base that an adapter may change: the GGUF tensor, and how many numbers go in and come out."""

    tensor: str
    inputs: int
    outputs: int

    @property
    def layer(self) -> int:
        """The block that it is of."""
        found = re.match(r"blk\.(\d+)\.", self.tensor)
        return int(found[1]) if found else 0

    @property
    def kind(self) -> str:
        """What it is in its block: ``attn_q``, ``ffn_down`` …"""
        return re.sub(r"^blk\.\d+\.|\.weight$", "", self.tensor)


@dataclass(frozen=True)
class Work:
    """What llama.cpp does more for a token under an adapter."""

    nodes: int
    rows: int
    weights: int


def adapter_work(matrices: Iterable[Matrix], rank: int) -> Work:
    """Of an adapter of ``rank`` on these matrices."""
    changed = list(matrices)
    return Work(
        nodes=NODES * len(changed),
        rows=sum(rank + each.outputs for each in changed),
        weights=sum(rank * (each.inputs + each.outputs) for each in changed),
    )


def extra_s(profile: Profile, work: Work) -> float:
    """Seconds that a token takes more on a device."""
    cycles = NODE_CYCLES * work.nodes + ROW_CYCLES * work.rows + WEIGHT_CYCLES * work.weights
    return cycles / (1e6 * (profile.clock_mhz or FALLBACK_CLOCK_MHZ))


def decode_share(profile: Profile, model: Model, work: Work, position: int) -> Estimate:
    """Decode speed under an adapter as a share of the bare base's, when ``position`` tokens are in the cache."""
    base = 1 / decode_tps(speed_of(profile), model, position).value
    extra = extra_s(profile, work)
    low, high = (base / (base + factor * extra) for factor in reversed(RANGE))
    return Estimate(base / (base + extra), low, high, "estimated")
