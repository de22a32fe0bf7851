"""Does a model fit a device, how fast will it be there, and which quantisation and context are best?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edgekit_devices.profiles import Profile
from edgekit_devices.speed import Estimate, Model, decode_tps, prefill_tps, speed_of, ttft_s

MIB = 1024 * 1024
SERVICE_MB = 60  # `serve` has a process beside the engine's
WHEELHOUSE_MB = 180  # unpacked, with its virtual environment
LEAST_CONTEXT = 512
# Types that llama.cpp's kernels want in another order than files have them, by what a CPU can do (``repack.cpp``).
REORDERED = {
    "avx2": ("Q4_0", "Q4_K", "IQ4_NL", "MXFP4"),
    "asimddp": ("Q4_0", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "IQ4_NL", "MXFP4"),
}
# Of ONNX exports: type -> bits a weight of the layers, and of the embedding or output, which are wider.
ONNX_BITS = {"fp32": (32.0, 32.0), "fp16": (16.0, 16.0), "int8": (8.75, 8.75), "int4": (4.625, 8.75)}
ADVISED_ONNX = ("int8", "int4")  # least loss first
ONNX_KV_ELEMENT = 4


@dataclass(frozen=True)
class Reader:
    """What reads images beside a base, in bytes.

    Attributes:
        file: the projector.
        buffers: activations of one image in it.
        kept: embeddings of images that may be asked about again.
    """

    file: int
    buffers: int
    kept: int


@dataclass(frozen=True)
class Memory:
    """MiB of RAM by use, and what the device has left for it.

    ``droppable`` is not needed: pages of the base's file that stay in memory as long as there is room.
    """

    base: float
    kv_cache: float
    adapters: float
    images: float
    runtime: float
    available: float
    droppable: float = 0.0

    @property
    def needed(self) -> float:
        """All together."""
        return self.base + self.kv_cache + self.adapters + self.images + self.runtime

    @property
    def fits(self) -> bool:
        """Whether there is room for it."""
        return self.needed <= self.available


@dataclass(frozen=True)
class Plan:
    """What is to be expected of a model on a device.

    Attributes:
        context: tokens of prompt and answer that the cache is made for.
        storage_mb: on the device's disk, runtime included.
        load_s: seconds until the base is in memory, from a cold disk.
        prefill_tps, decode_tps, ttft_s: of a prompt of ``prompt_tokens``.
    """

    model: Model
    context: int
    prompt_tokens: int
    memory: Memory
    storage_mb: float
    load_s: float
    prefill_tps: Estimate
    decode_tps: Estimate
    ttft_s: Estimate


@dataclass(frozen=True)
class Advice:
    """The best choice that fits; None where nothing does.

    Attributes:
        quantization: the one with least loss that fits, and decodes fast enough.
        context: the longest that fits with the model as it is.
    """

    quantization: str | None
    context: int | None


def plan(
    profile: Profile,
    model: Model,
    *,
    context: int,
    prompt_tokens: int = 256,
    adapters: Sequence[int] = (),
    parallel: int = 1,
    service: bool = False,
    reader: Reader | None = None,
) -> Plan:
    """What a model needs and how fast it will be.

    Args:
        profile: the device.
        model: the base.
        context: tokens of prompt and answer together, of each request.
        prompt_tokens: length of the prompt that speeds are for.
        adapters: bytes of each adapter file; all of them loaded, one at work.
        parallel: requests that are answered at once.
        service: with the HTTP service's own process.
        reader: what reads images, where the base does.
    """
    speed = speed_of(profile)
    one = max(adapters, default=0)
    projector = reader.file if reader else 0
    memory = Memory(
        base=model.loaded_bytes / MIB,
        kv_cache=parallel * model.kv_bytes(context) / MIB,
        adapters=sum(adapters) / MIB,
        images=(reader.file + reader.buffers + reader.kept) / MIB if reader else 0.0,
        runtime=(model.running_bytes + model.score_bytes * context) / MIB + (SERVICE_MB if service else 0),
        available=profile.memory_mb - profile.os_memory_mb,
        droppable=_reordered_bytes(profile, model) / MIB,
    )
    return Plan(
        model=model,
        context=context,
        prompt_tokens=prompt_tokens,
        memory=memory,
        storage_mb=(model.file_bytes + sum(adapters) + projector) / MIB + WHEELHOUSE_MB,
        load_s=(model.file_bytes + projector) / 1e6 / profile.storage_mbs,
        prefill_tps=prefill_tps(speed, model, prompt_tokens),
        decode_tps=decode_tps(speed, model, prompt_tokens, one),
        ttft_s=ttft_s(speed, model, prompt_tokens, one),
    )


def advise(
    profile: Profile,
    model: Model,
    others: Mapping[str, Model],
    *,
    min_decode_tps: float = 0.0,
    **settings: object,
) -> Advice:
    """The quantisation with least loss that fits and is fast enough, and the longest context for the model as it is.

    Args:
        profile: the device.
        model: the base.
        others: the same base in other types, the one with least loss first.
        min_decode_tps: the least speed that will do, tokens per second.
        settings: ``context``, ``adapters``, ``parallel``, ``service``, ``reader`` of :func:`plan`.
    """
    quantization = None
    for each, other in others.items():
        planned = plan(profile, other, **settings)  # type: ignore[arg-type]
        if planned.memory.fits and planned.decode_tps.value >= min_decode_tps:
            quantization = each
            break
    context = None
    longest = 2 ** int(math.log2(max(model.context, LEAST_CONTEXT)))
    while longest >= LEAST_CONTEXT:
        if plan(profile, model, **(settings | {"context": longest})).memory.fits:  # type: ignore[arg-type]
            context = longest
            break
        longest //= 2
    return Advice(quantization, context)


def onnx_model(model: Model, quantization: str, embedding_parameters: float) -> Model:
    """A model as an ONNX export of another type: by ``ONNX_BITS`` its matrices become larger or smaller.

    Args:
        model: the same export; what it has beside matrices stays.
        quantization: one of ``ONNX_BITS``.
        embedding_parameters: weights of its embedding, and of its output where that is another tensor.
    """

    def matrices(kind: str) -> float:
        layers, embedding = ONNX_BITS[kind]
        return (model.matmul_parameters * layers + embedding_parameters * embedding) / 8

    size = round(model.file_bytes + matrices(quantization) - matrices(model.quantization))
    read = round(size * model.read_bytes / model.file_bytes)
    return replace(model, quantization=quantization, file_bytes=size, read_bytes=read, kv_element=ONNX_KV_ELEMENT)


def _reordered_bytes(profile: Profile, model: Model) -> int:
    """Of the layers' matrices, those that the engine keeps in another order, in place of the file's pages."""
    types = {each for feature in profile.features for each in REORDERED.get(feature, ())}
    return sum(size for name, size in model.layer_bytes.items() if name in types)
