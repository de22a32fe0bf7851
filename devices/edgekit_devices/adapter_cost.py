"""What a LoRA adapter costs in decode, before there is one: from the shapes of the matrices that it changes.

llama.cpp computes ``x W + scale (x A) B`` with four more graph nodes than ``x W`` (``build_lora_mm``): two products, a
scale and a sum.  For one token these cost a fixed price each, what reading A and B takes, and what a dot product leaves
over: it takes STEP numbers at a time, and the rest one by one.  B's rows are as long as the rank.

    extra = node x nodes + bytes of A and B / decode_gbs + single x singles

``benchmarks/adapter_cost.py`` measures adapters of many shapes and fits the prices.  Nodes and singles are counted in
clock cycles, which is how their prices come to other CPUs: an estimate.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from edgekit_devices.profiles import Profile
from edgekit_devices.speed import FALLBACK_CLOCK_MHZ, Estimate, Model, decode_tps, speed_of

NODES = 4
WEIGHT_BYTES = 2  # F16
NODE_CYCLES, SINGLE_CYCLES = 1200.0, 2.2
# How far the extra time may be below and above, as a factor.
RANGE = (0.5, 2.0)
STEP, PLAIN_STEP = 32, 16  # of ggml's dot products of F16; of those on ARM without arithmetic of half floats
HALF_FLOATS = "asimdhp"
FILLED_UP = "avx2"  # where the runtime fills lower ranks up to STEP


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
class Shape:
    """An adapter: the matrices it changes, and the rank of its pairs."""

    matrices: tuple[Matrix, ...]
    rank: int


@dataclass(frozen=True)
class Work:
    """What llama.cpp does more for a token under an adapter."""

    nodes: int
    weights: int
    singles: int


def adapter_work(shape: Shape, features: Collection[str]) -> Work:
    """Of an adapter on a CPU with these instruction sets, as profiles name them."""
    rank = max(shape.rank, STEP) if FILLED_UP in features else shape.rank
    step = PLAIN_STEP if "asimd" in features and HALF_FLOATS not in features else STEP
    outputs = sum(each.outputs for each in shape.matrices)
    return Work(
        nodes=NODES * len(shape.matrices),
        weights=rank * (sum(each.inputs for each in shape.matrices) + outputs),
        singles=(rank % step) * outputs,
    )


def extra_s(profile: Profile, shape: Shape) -> float:
    """Seconds that a token takes more on a device."""
    work = adapter_work(shape, profile.features)
    cycles = NODE_CYCLES * work.nodes + SINGLE_CYCLES * work.singles / profile.cores
    read = WEIGHT_BYTES * work.weights / (1e9 * speed_of(profile).decode_gbs)
    return cycles / (1e6 * (profile.clock_mhz or FALLBACK_CLOCK_MHZ)) + read


def decode_share(profile: Profile, model: Model, shapes: Sequence[Shape], position: int) -> Estimate:
    """Decode speed under adapters at once as a share of the bare base's, when ``position`` tokens are in the cache.

    llama.cpp computes each adapter by itself, so what they cost adds up.
    """
    base = 1 / decode_tps(speed_of(profile), model, position).value
    extra = sum(extra_s(profile, shape) for shape in shapes)
    low, high = (base / (base + factor * extra) for factor in reversed(RANGE))
    return Estimate(base / (base + extra), low, high, "estimated")
