"""`edgekit plan`: will this run on that device, and how fast?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgekit.bases.weights import Weights
from edgekit.project import AUTO
from edgekit_devices.fit import BITS, Advice, Plan, Reader, advise, plan, requantized
from edgekit_devices.profiles import Profile
from edgekit_devices.speed import Estimate, Model
from edgekit_exporters.base import Base
from edgekit_exporters.gguf.base import quantization_of
from edgekit_runtime.engines import DEFAULT_CONTEXT
from edgekit_runtime.errors import InputError, UsageError
from edgekit_runtime.formats.base_files import BaseFiles
from edgekit_runtime.formats.bundle import open_bundle
from edgekit_runtime.formats.gguf import GgufFile, read_gguf
from edgekit_runtime.formats.manifest import BaseEntry
from edgekit_runtime.formats.model_facts import ModelFacts, genai_facts, gguf_facts
from edgekit_runtime.formats.onnx_base import DATA_FILE, GENAI_CONFIG, KEY_LAYERS
from edgekit_runtime.formats.onnx_base import ENGINE as ONNX_ENGINE
from edgekit_runtime.hints import did_you_mean

PLAN_SCHEMA = "edgekit.plan/1"
FLOAT_BYTES = 4


@dataclass(frozen=True)
class Subject:
    """What is to be run: a base and the adapters on it.

    Attributes:
        name: for the report.
        model: the base's facts.
        embedding_parameters: weights of embedding and output.
        adapters: bytes by name.
        isa: instruction set that it was exported for; "any" when no device was named.
        reader: what reads images, in a caption bundle.
    """

    name: str
    model: Model
    embedding_parameters: float
    adapters: dict[str, int]
    isa: str = "any"
    reader: Reader | None = None


@dataclass(frozen=True)
class Planned:
    """A plan with what it was made for."""

    subject: Subject
    profile: Profile
    plan: Plan
    advice: Advice

    def as_dict(self) -> dict[str, Any]:
        """The JSON document (schema ``edgekit.plan/1``): MiB, seconds, tokens and tokens per second."""
        memory = self.plan.memory
        return {
            "schema": PLAN_SCHEMA,
            "subject": asdict(self.subject),
            "device": asdict(self.profile),
            "fits": memory.fits,
            **asdict(self.plan),
            "memory": asdict(memory) | {"needed": memory.needed, "fits": memory.fits},
            "best": asdict(self.advice),
        }


def make_plan(
    profile: Profile,
    subject: Subject,
    *,
    context: int | None = None,
    prompt_tokens: int = 256,
    parallel: int = 1,
    service: bool = False,
    min_decode_tps: float = 0.0,
) -> Planned:
    """Plan ``subject`` on a device.

    Args:
        profile: the device.
        subject: what is to be run.
        context: tokens of a request; what the runtime takes when None: the base's own, but at most 4096.
        prompt_tokens: length of the prompt that speeds are for.
        parallel: requests that are answered at once.
        service: with the HTTP service's own process.
        min_decode_tps: what the advised quantisation has to reach.

    Raises:
        UsageError: counts below 1, or a prompt longer than the context.
    """
    if context is None:
        context = min(subject.model.context, DEFAULT_CONTEXT)
    if min(context, prompt_tokens, parallel, profile.memory_mb) < 1 or not min_decode_tps >= 0:
        raise UsageError("tokens, requests and memory have to be at least 1, a speed at least 0", "raise them")
    if prompt_tokens >= context:
        raise UsageError(f"a prompt of {prompt_tokens} tokens needs a longer context than {context}", "raise --context")
    settings: dict[str, Any] = {
        "context": context,
        "prompt_tokens": prompt_tokens,
        "adapters": list(subject.adapters.values()),
        "parallel": parallel,
        "service": service,
        "reader": subject.reader,
    }
    return Planned(
        subject,
        profile,
        plan(profile, subject.model, **settings),
        advise(profile, subject.model, subject.embedding_parameters, min_decode_tps=min_decode_tps, **settings),
    )


def subject_of_bundle(path: Path) -> Subject:
    """A bundle's base and adapters, or a GGUF file alone.

    Raises:
        InputError: neither.
    """
    if path.suffix == ".gguf" and path.is_file():
        return _subject_of_gguf(path, path.stem, {})
    with open_bundle(path, verify=False) as bundle:
        manifest = bundle.manifest
        sizes = {file.path: file.size for file in manifest.files}
        adapters = {entry.name: sizes[entry.file] for entry in manifest.adapters}
        name = f"{manifest.name} {manifest.version}"
        if manifest.engine == ONNX_ENGINE:
            model, embedding = _facts_of_onnx(bundle.base_files, manifest.base)
            return Subject(name, model, embedding, adapters, manifest.requires.isa)
        subject = _subject_of_gguf(bundle.base_path, name, adapters)
        reader = None if bundle.projector_path is None else _reader(bundle.projector_path)
        return replace(subject, isa=manifest.requires.isa, reader=reader)


def subject_of_base(base: Base, weights: Weights) -> Subject:
    """A base as it would be exported.

    Raises:
        UsageError: a quantisation whose size isn't known.
    """
    wanted = weights.label
    if base.gguf is not None and wanted == quantization_of(base.gguf):
        return _subject_of_gguf(base.gguf, base.name, {})
    if wanted == AUTO:
        raise UsageError(
            "export.quantize is auto, and what it will find isn't known yet", "name a --quantize, Q4_0 say"
        )
    if wanted not in BITS:
        raise UsageError(f"the size of {wanted} isn't known before it is exported", did_you_mean(wanted, BITS))
    model, embedding = _facts_of_folder(base.folder)
    return Subject(base.name, requantized(model, wanted, embedding), embedding, {})


def _reader(projector: Path) -> Reader:
    """Of an image the encoder holds one layer's activations and attention scores at a time, as floats."""
    from edgekit_runtime.engines.llama.images import DEFAULT_LIMIT

    metadata = read_gguf(projector).metadata

    def number(key: str) -> int:
        return int(metadata[f"clip.vision.{key}"])

    patches = (number("image_size") // number("patch_size")) ** 2
    widths = number("feed_forward_length") + 4 * number("embedding_length")
    buffers = FLOAT_BYTES * patches * (widths + number("attention.head_count") * patches)
    return Reader(projector.stat().st_size, buffers, DEFAULT_LIMIT)


def report(planned: Planned) -> str:
    """The plan as text, with how it was computed."""
    subject, profile, made = planned.subject, planned.profile, planned.plan
    memory, model = made.memory, subject.model
    speed = made.decode_tps.basis
    lines = [
        f"{subject.name} ({model.quantization}) on {profile.title}",
        "",
        f"{'FITS' if memory.fits else 'DOES NOT FIT'}: needs {memory.needed:.0f} MiB of {memory.available:.0f} MiB "
        f"({profile.memory_mb} MiB less {profile.os_memory_mb} MiB for the system)",
        f"  base {memory.base:.0f}, KV cache {memory.kv_cache:.0f} (context {made.context}), "
        f"adapters {memory.adapters:.1f} ({len(subject.adapters)}), runtime {memory.runtime:.0f}"
        + (f", images {memory.images:.0f} (projector, its buffers, kept embeddings)" if subject.reader else ""),
        f"storage {made.storage_mb:.0f} MiB with the runtime; cold load about {made.load_s:.0f} s ({profile.storage})",
        "",
        f"expected for a prompt of {made.prompt_tokens} tokens ({speed}):",
        f"  prefill {_range(made.prefill_tps, 'tokens/s')}",
        f"  first token after {_range(made.ttft_s, 's')}",
        f"  decode {_range(made.decode_tps, 'tokens/s')}",
        "",
        f"best quantisation: {planned.advice.quantization or 'none fits'}",
        f"longest context as it is: {planned.advice.context or 'none fits'}",
        "",
        "decode reads weights and cache once a token; prefill is two operations a weight and token, and attention;",
        f"figures of this device: {_source(profile)}",
    ]
    return "\n".join(lines)


def _source(profile: Profile) -> str:
    from edgekit_devices.speed import speed_of

    speed = speed_of(profile)
    return f"{speed.decode_gbs:.3g} GB/s, {speed.prefill_gflops:.3g} GFLOP/s, {speed.basis}: {speed.source}"


def _range(estimate: Estimate, unit: str) -> str:
    return f"{estimate.value:.3g} {unit} ({estimate.low:.3g} to {estimate.high:.3g})"


def _subject_of_gguf(path: Path, name: str, adapters: dict[str, int]) -> Subject:
    header = read_gguf(path)
    model, embedding = _facts_of_gguf(header, path.stat().st_size, quantization_of(path) or "unknown")
    return Subject(name, model, embedding, adapters)


def _facts_of_gguf(header: GgufFile, size: int, quantization: str) -> tuple[Model, float]:
    metadata = header.metadata
    architecture = str(metadata["general.architecture"])

    def number(key: str, default: float) -> float:
        value = metadata.get(f"{architecture}.{key}", default)
        values = value if isinstance(value, list) else [value]  # some models say it for each layer
        return sum(values) / len(values)

    facts = gguf_facts(header)
    used = number("expert_used_count", 1) / number("expert_count", 1)
    matmul = embedding = read = 0.0
    for tensor in header.tensors.values():
        elements = 1
        for length in tensor.shape:
            elements *= length
        share = used if "_exps." in tensor.name else 1.0
        if tensor.name in ("token_embd.weight", "output.weight"):
            embedding += elements
            is_only_looked_up = tensor.name == "token_embd.weight" and "output.weight" in header.tensors
            read += 0 if is_only_looked_up else tensor.size
        else:
            read += share * tensor.size
            matmul += share * elements if len(tensor.shape) > 1 else 0
    model = Model(
        quantization=quantization,
        file_bytes=size,
        read_bytes=round(read),
        matmul_parameters=matmul,
        **_attention(facts),
    )
    return model, embedding


def _facts_of_onnx(files: BaseFiles, base: BaseEntry) -> tuple[Model, float]:
    """The same of an ONNX base: GenAI's config, and the layers that take adapters, which are all matrices but two."""
    facts = genai_facts(json.loads((files.model.parent / GENAI_CONFIG).read_text(encoding="utf-8")))
    shapes = [line.split()[1:] for line in read_gguf(files.header).metadata[KEY_LAYERS]]
    matmul = float(sum(int(inputs) * int(outputs) for inputs, outputs in shapes))
    model = Model(
        quantization=base.quantization,
        file_bytes=files.size,
        read_bytes=files.part(DATA_FILE).stat().st_size,
        matmul_parameters=matmul,
        **_attention(replace(facts, context=base.context)),
    )
    return model, base.parameters - matmul


def _attention(facts: ModelFacts) -> dict[str, int]:
    return {
        "layers": facts.layers,
        "context": facts.context,
        "query_width": round(facts.query_width),
        "kv_width": round(facts.kv_width),
        "kv_element": facts.kv_element,
    }


def _facts_of_folder(folder: Path) -> tuple[Model, float]:
    """The same of a Hugging Face folder, as F16."""
    from safetensors import safe_open

    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config = config.get("text_config", config)
        heads, layers = int(config["num_attention_heads"]), int(config["num_hidden_layers"])
        head = int(config.get("head_dim") or config["hidden_size"] // heads)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder} has no config.json of a language model ({error})", "give a GGUF file") from None
    matmul = embedding = 0.0
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "np") as tensors:
            for name in tensors.keys():  # noqa: SIM118  # it has no iterator
                shape: Sequence[int] = tensors.get_slice(name).get_shape()
                if len(shape) > 1 and ("embed_tokens" in name or "lm_head" in name):
                    embedding += shape[0] * shape[1]
                elif len(shape) > 1:
                    matmul += shape[0] * shape[1]
    size = round(2 * (matmul + embedding))
    tied = bool(config.get("tie_word_embeddings", False))
    kv_heads = int(config.get("num_key_value_heads") or heads)
    context = int(config.get("max_position_embeddings", DEFAULT_CONTEXT))
    read = size if tied else size - round(embedding)
    return Model("F16", size, read, matmul, layers, heads * head, 2 * kv_heads * head, context), embedding
