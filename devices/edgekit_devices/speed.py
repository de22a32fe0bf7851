"""How fast a device answers: decode bound by reading weights, prefill by arithmetic.

Decoding one token reads every weight once and the KV cache so far, so its speed is bytes per second over bytes:

    decode  = decode_gbs * 1e9 * D[type] / (read_bytes + kv_bytes_per_token * position)

A prompt of n tokens costs, per token, two operations a weight in the matrix multiplications, and in attention
4 x layers x query width for each token before it, n / 2 on average:

    prefill = prefill_gflops * 1e9 * P[type] / (2 * matmul_parameters + 4 * layers * query_width * n / 2)

``decode_gbs`` and ``prefill_gflops`` are of the device, D and P of the quantisation; :mod:`edgekit_devices.calibration`
fits them on published figures and tells how far off the result is where they weren't used.  These are llama.cpp's: for
bases that ONNX Runtime runs, ranges are those of an estimate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgekit_devices.profiles import Profile, Speed

# P: prefill against Q4_0, of the Raspberry Pi 4's figures; types that are not listed count as SLOW_PREFILL.
PREFILL = {
    "F16": 0.44,
    "BF16": 0.44,
    "Q8_0": 1.04,
    "Q6_K": 0.79,
    "Q5_K_M": 0.84,
    "Q5_K_S": 0.84,
    "Q5_0": 0.81,
    "Q5_1": 0.81,
    "Q4_K_M": 1.04,
    "Q4_K_S": 1.04,
    "Q4_0": 1.0,
    "Q4_1": 1.0,
    "IQ4_NL": 0.87,
    "IQ4_XS": 0.87,
    "Q3_K_M": 0.86,
    "int8": 1.0,
    "int4": 1.0,
}
ONNX = ("int8", "int4", "fp16", "fp32")
SLOW_PREFILL = 0.5
# D: unpacking these costs more than reading them.
DECODE = {"IQ3_M": 0.68, "IQ3_S": 0.68, "IQ3_XXS": 0.68, "IQ2_M": 0.6, "IQ2_S": 0.6, "IQ2_XS": 0.6, "IQ2_XXS": 0.6}
# How far the truth may be below and above: (decode, prefill) by basis, from docs/devices.md's table of errors.
RANGES = {
    "calibrated": ((0.8, 1.2), (0.65, 1.35)),
    "published": ((0.75, 1.25), (0.5, 1.6)),
    "estimated": ((0.55, 1.7), (0.4, 2.0)),
}
# Without published figures.  Share of the memory interface's peak that decoding reaches: 0.27 on a Cortex-A72; with
# dot-product instructions 0.41 (RK3588, llama.cpp issue 7176), 0.55 (Cortex-A76 of a Pi 5), 0.65 (Intel N150).
PLAIN_SHARE, DOT_SHARE = 0.27, 0.45
# Operations a core does per clock with Q4_0: 3 on a Cortex-A72; with dot-product instructions (A76, AVX2) about 8.
PLAIN_PER_CLOCK, DOT_PER_CLOCK = 3.0, 8.0
DOT_FEATURES = {"asimddp", "avx2", "avx_vnni"}
FALLBACK_CLOCK_MHZ = 1500


@dataclass(frozen=True)
class Model:
    """What speed and memory depend on.

    Attributes:
        quantization: llama.cpp's name of the weights' type, or one of ``ONNX``.
        file_bytes: the base's file.
        read_bytes: of it read for each decoded token; an input embedding that is not the output too doesn't count.
        matmul_parameters: weights that a prompt's tokens are multiplied with: neither embedding nor output.
        layers: blocks.
        query_width: heads x head size.
        kv_width: elements that keys and values of one token and layer take together; the mean where layers differ.
        context: tokens that the model was made for.
        kv_element: bytes of an element of the KV cache: of F16 in llama.cpp unless told otherwise, of float32 in ONNX
            Runtime; a fraction where it is kept in blocks.
        state_bytes: what recurrent layers keep of a request, however long it is.
        running_bytes: what running the model takes beside its weights and what it keeps of requests.
        score_bytes: more of that for each token of context.
        layer_bytes: bytes of the layers' matrices, by the type of their numbers.
    """

    quantization: str
    file_bytes: int
    read_bytes: int
    matmul_parameters: float
    layers: int
    query_width: float
    kv_width: float
    context: int
    kv_element: float = 2
    state_bytes: int = 0
    running_bytes: int = 0
    score_bytes: int = 0
    layer_bytes: Mapping[str, int] = field(default_factory=dict)

    def kv_bytes(self, tokens: int) -> int:
        """What a request of ``tokens`` keeps."""
        return round(tokens * self.layers * self.kv_width * self.kv_element) + self.state_bytes

    @property
    def loaded_bytes(self) -> int:
        """The base in memory, where ONNX Runtime widens float16."""
        return self.file_bytes * (2 if self.quantization == "fp16" else 1)


@dataclass(frozen=True)
class Estimate:
    """A figure with its range, and what it rests on ("calibrated", "published" or "estimated")."""

    value: float
    low: float
    high: float
    basis: str


def speed_of(profile: Profile) -> Speed:
    """The profile's own figures, or what its bandwidth and clock suggest."""
    if profile.speed is not None:
        return profile.speed
    dot = bool(DOT_FEATURES & set(profile.features))
    share, per_clock = (DOT_SHARE, DOT_PER_CLOCK) if dot else (PLAIN_SHARE, PLAIN_PER_CLOCK)
    clock = (profile.clock_mhz or FALLBACK_CLOCK_MHZ) / 1000
    return Speed(
        basis="estimated",
        decode_gbs=share * profile.memory_bandwidth_gbs,
        prefill_gflops=per_clock * profile.cores * clock,
        source=f"{share} of {profile.memory_bandwidth_gbs} GB/s; {per_clock:g} operations a clock and core",
    )


def decode_tps(speed: Speed, model: Model, position: int, adapter_bytes: int = 0) -> Estimate:
    """Tokens per second when ``position`` tokens are in the cache and an adapter's weights are read too."""
    read = model.read_bytes + adapter_bytes + model.kv_bytes(position)
    value = speed.decode_gbs * 1e9 * DECODE.get(model.quantization, 1.0) / read
    return _ranged(value, _basis(speed, model), 0)


def prefill_tps(speed: Speed, model: Model, tokens: int) -> Estimate:
    """Tokens per second of a prompt of ``tokens``."""
    operations = 2 * model.matmul_parameters + 4 * model.layers * model.query_width * tokens / 2
    value = speed.prefill_gflops * 1e9 * PREFILL.get(model.quantization, SLOW_PREFILL) / operations
    return _ranged(value, _basis(speed, model), 1)


def ttft_s(speed: Speed, model: Model, tokens: int, adapter_bytes: int = 0) -> Estimate:
    """Seconds from a prompt of ``tokens`` to the first token of the answer."""
    prefill, decode = prefill_tps(speed, model, tokens), decode_tps(speed, model, tokens, adapter_bytes)
    return Estimate(
        tokens / prefill.value + 1 / decode.value,
        tokens / prefill.high + 1 / decode.high,
        tokens / prefill.low + 1 / decode.low,
        _basis(speed, model),
    )


def _basis(speed: Speed, model: Model) -> str:
    return "estimated" if model.quantization in ONNX else speed.basis


def _ranged(value: float, basis: str, which: int) -> Estimate:
    low, high = RANGES[basis][which]
    return Estimate(value, value * low, value * high, basis)
