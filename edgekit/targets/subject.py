"""What `edgekit plan` is asked about: a bundle, a GGUF file, or a base as it would be exported."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgekit.bases.probe.window import exact_context
from edgekit.bases.resolve import gguf_file, resolve_base
from edgekit.bases.weights import ONNX, Weights, deployed_weights, tell_requantized, weights_named
from edgekit.project import AUTO, Export, Project
from edgekit.targets.adapter_cost import adaptable_matrices, adapter_file_shape
from edgekit_devices.adapter_cost import Matrix, Shape
from edgekit_devices.fit import ADVISED_ONNX, ONNX_KV_ELEMENT, Reader, onnx_model
from edgekit_devices.speed import Model
from edgekit_exporters.base import Base
from edgekit_exporters.gguf.base import Recipe, quantization_of
from edgekit_exporters.gguf.outline import file_bytes, quantized_header, source_gguf
from edgekit_exporters.gguf.quantize import ADVISED
from edgekit_runtime.engines.memory import ONNX_RUNTIME_BYTES, running_bytes, score_bytes
from edgekit_runtime.errors import UsageError
from edgekit_runtime.formats.base_files import BaseFiles
from edgekit_runtime.formats.bundle import open_bundle
from edgekit_runtime.formats.gguf import GgufFile, read_gguf
from edgekit_runtime.formats.kv_cache import refuse_for_onnx, with_kv_cache
from edgekit_runtime.formats.manifest import F16, BaseEntry
from edgekit_runtime.formats.model_facts import genai_facts, gguf_facts
from edgekit_runtime.formats.onnx_base import DATA_FILE, GENAI_CONFIG, KEY_LAYERS
from edgekit_runtime.formats.onnx_base import ENGINE as ONNX_ENGINE

FLOAT_BYTES = 4
CONVOLUTION = "conv"  # a layer that keeps the last inputs instead of keys and values
NAME = "general.name"
EMBEDDINGS = ("token_embd.weight", "output.weight")


@dataclass(frozen=True)
class Subject:
    """What is to be run: a base and the adapters on it.

    Attributes:
        name: for the report.
        model: the base's facts.
        embedding_parameters: weights of embedding and output.
        adapters: bytes by name.
        kv_cache: type of the KV cache; None where the engine has its own.
        isa: instruction set that it was exported for; "any" when no device was named.
        reader: what reads images, in a caption bundle.
        others: the same base in the types that may be advised, the one with least loss first.
        matrices: that `targets: all-linear` means, where llama.cpp runs them.
        shapes: of each LoRA, by name, likewise.
        stacks: the adapters of each stack, by its name.
    """

    name: str
    model: Model
    embedding_parameters: float
    adapters: dict[str, int]
    kv_cache: str | None = None
    isa: str = "any"
    reader: Reader | None = None
    others: Mapping[str, Model] = field(default_factory=dict)
    matrices: tuple[Matrix, ...] = ()
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    stacks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def subject_of_bundle(path: Path, kv_cache: str | None = None) -> Subject:
    """A bundle's base and adapters, or a GGUF file alone.

    Args:
        path: of either.
        kv_cache: type of the KV cache; the bundle's when None.

    Raises:
        InputError: neither, or a base that can't have this cache.
        UsageError: an ONNX bundle can't.
    """
    if path.suffix == ".gguf" and path.is_file():
        return _subject_of_gguf(path, path.stem, kv_cache or F16)
    with open_bundle(path, verify=False) as bundle:
        manifest = bundle.manifest
        sizes = {file.path: file.size for file in manifest.files}
        adapters = {entry.name: sizes[entry.file] for entry in manifest.adapters}
        name = f"{manifest.name} {manifest.version}"
        kind = kv_cache or bundle.base_files.kv_cache
        if manifest.engine == ONNX_ENGINE:
            refuse_for_onnx(kind)
            subject = _subject_of_onnx(*_facts_of_onnx(bundle.base_files, manifest.base), name)
        else:
            subject = _subject_of_gguf(bundle.base_path, name, kind)
            headers = {entry.name: read_gguf(bundle.adapter_path(entry.name)) for entry in manifest.adapters}
            shapes = {name: adapter_file_shape(header) for name, header in headers.items()}
            subject = replace(subject, shapes={name: shape for name, shape in shapes.items() if shape.matrices})
        reader = None if bundle.projector_path is None else _reader(bundle.projector_path)
        subject = _bounded(subject, manifest.base.context)
        stacks = {stack.name: tuple(stack.scales) for stack in manifest.stacks}
        return replace(subject, adapters=adapters, stacks=stacks, isa=manifest.requires.isa, reader=reader)


def subject_of_name(
    name: str, quantize: str | None = None, project: Project | None = None, *, kv_cache: str | None = None
) -> Subject:
    """A base by its name, as it would be exported; a GGUF file is not unpacked for it.

    Args:
        name: as users write it.
        quantize: what devices are to run; else what the project says, else the file's own type.
        project: where the name stands, if it does in one.
        kv_cache: type of the KV cache; else what the project says.

    Raises:
        UsageError: no such type, or it isn't decided yet.
        InputError: no such base, one that can't be converted, or that can't have this cache.
    """
    settings, place = (None, None) if project is None else (project.export, project.folder)
    gguf = gguf_file(name, relative_to=place)
    weights = weights_named(quantize, gguf) if settings is None else deployed_weights(settings, gguf, quantize)
    tell_requantized(gguf, weights, merged=settings is not None and settings.mode == "merged")
    if gguf is None or weights.format == ONNX:
        return subject_of_base(resolve_base(name, relative_to=place), weights, settings, kv_cache)
    return _subject_of_blocks(gguf, name, _decided(weights), settings, _cache(settings, kv_cache))


def subject_of_base(
    base: Base, weights: Weights, settings: Export | None = None, kv_cache: str | None = None
) -> Subject:
    """A base as it would be exported; nothing is made for it, and no weight is read.

    Args:
        base: what would be exported.
        weights: what devices are to run.
        settings: the project's export, whose importance matrix and types of single tensors count too.
        kv_cache: type of the KV cache; else what the project says.

    Raises:
        UsageError: the type isn't decided yet.
        InputError: the base can't be converted, or can't have this cache.
    """
    wanted, cache = _decided(weights), _cache(settings, kv_cache)
    if weights.format == ONNX:
        refuse_for_onnx(cache)
        model, embedding = _facts_of_outline(base, wanted)
        others = {each: _facts_of_outline(base, each)[0] for each in ADVISED_ONNX}
        return Subject(base.name, model, embedding, {}, others=others)
    if base.gguf is not None:
        subject = _subject_of_blocks(base.gguf, base.name, wanted, settings, cache)
    else:
        with source_gguf(base) as source:
            subject = _quantized_subject(source, base.name, wanted, settings, cache)
    return _bounded(subject, exact_context(base) or subject.model.context)


def _cache(settings: Export | None, kv_cache: str | None) -> str:
    """The type of the KV cache, of a base that is no bundle yet."""
    return kv_cache or (F16 if settings is None else settings.kv_cache)


def _decided(weights: Weights) -> str:
    if weights.label == AUTO:
        raise UsageError(
            "export.quantize is auto, and what it will find isn't known yet", "name a --quantize, Q4_0 say"
        )
    return weights.label


def _bounded(subject: Subject, longest: int) -> Subject:
    """With no more context than ``longest``, at whatever quantisation."""
    models = {name: replace(model, context=min(model.context, longest)) for name, model in subject.others.items()}
    return replace(subject, model=replace(subject.model, context=min(subject.model.context, longest)), others=models)


def _subject_of_blocks(gguf: Path, name: str, wanted: str, settings: Export | None, kv_cache: str) -> Subject:
    """A GGUF that the user gave as the base: as it is, or at another type."""
    if _recipe(wanted, settings).is_plain and wanted == quantization_of(gguf):
        return _subject_of_gguf(gguf, name, kv_cache)
    return _quantized_subject(gguf, name, wanted, settings, kv_cache)


def _quantized_subject(source: Path, name: str, wanted: str, settings: Export | None, kv_cache: str) -> Subject:
    header = quantized_header(source, _recipe(wanted, settings))
    model, embedding = _facts_of_gguf(header, wanted, kv_cache)
    others = _others(source, settings, kv_cache)
    return Subject(name, model, embedding, {}, kv_cache, others=others, matrices=adaptable_matrices(header))


def _recipe(quantization: str, settings: Export | None) -> Recipe:
    """How it would be quantised; of the importance matrix only matters that there will be one."""
    if settings is None:
        return Recipe(quantization)
    return Recipe(quantization, Path() if settings.imatrix else None, settings.tensor_types)


def _others(source: Path, settings: Export | None, kv_cache: str) -> dict[str, Model]:
    headers = {each: quantized_header(source, _recipe(each, settings)) for each in ADVISED}
    return {each: _facts_of_gguf(header, each, kv_cache)[0] for each, header in headers.items()}


def _subject_of_gguf(path: Path, name: str, kv_cache: str) -> Subject:
    header = read_gguf(path)
    model, embedding = _facts_of_gguf(header, quantization_of(path) or "unknown", kv_cache)
    others = _others(path, None, kv_cache)
    return Subject(name, model, embedding, {}, kv_cache, others=others, matrices=adaptable_matrices(header))


def _subject_of_onnx(model: Model, embedding: float, name: str) -> Subject:
    others = {each: onnx_model(model, each, embedding) for each in ADVISED_ONNX}
    return Subject(name, model, embedding, {}, others=others)


def _facts_of_gguf(header: GgufFile, quantization: str, kv_cache: str) -> tuple[Model, float]:
    """A base's model, and the weights of its embedding and output."""
    facts = with_kv_cache(gguf_facts(header), kv_cache, str(header.metadata.get(NAME, header.path.name)))
    matmul = embedding = read = 0.0
    layer_bytes: dict[str, int] = {}
    used = _share_of_experts(header)
    for tensor in header.tensors.values():
        elements = math.prod(tensor.shape)
        share = used if "_exps." in tensor.name else 1.0
        if tensor.name in EMBEDDINGS:
            embedding += elements
            is_only_looked_up = tensor.name == EMBEDDINGS[0] and EMBEDDINGS[1] in header.tensors
            read += 0 if is_only_looked_up else tensor.size
            continue
        read += share * tensor.size
        if len(tensor.shape) > 1:
            matmul += share * elements
            layer_bytes[tensor.type_name] = layer_bytes.get(tensor.type_name, 0) + tensor.size
    model = Model(
        quantization=quantization,
        file_bytes=file_bytes(header),
        read_bytes=round(read),
        matmul_parameters=matmul,
        layers=facts.layers,
        query_width=facts.query_width,
        kv_width=facts.kv_width,
        context=facts.context,
        kv_element=facts.kv_element,
        state_bytes=facts.state_bytes,
        running_bytes=running_bytes(facts),
        score_bytes=score_bytes(facts),
        layer_bytes=layer_bytes,
    )
    return model, embedding


def _share_of_experts(header: GgufFile) -> float:
    """That a token passes through; the mean where layers differ."""
    architecture = str(header.metadata["general.architecture"])
    used, there = (header.metadata.get(f"{architecture}.{key}") or 1 for key in ("expert_used_count", "expert_count"))
    each = used if isinstance(used, list) else [used]
    return float(sum(each) / len(each) / there)


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
        layers=facts.layers,
        query_width=facts.query_width,
        kv_width=facts.kv_width,
        context=base.context,
        kv_element=facts.kv_element,
        state_bytes=facts.state_bytes,
        running_bytes=ONNX_RUNTIME_BYTES,
    )
    return model, base.parameters - matmul


def _facts_of_outline(base: Base, precision: str) -> tuple[Model, float]:
    """The same of a base that is not exported yet."""
    from edgekit_exporters.onnx.outline import onnx_outline  # takes torch

    outline = onnx_outline(base, precision)
    config = outline.config
    heads, layers = int(config.num_attention_heads), int(config.num_hidden_layers)
    head = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    kinds = getattr(config, "layer_types", None) or []
    recurrent = kinds.count(CONVOLUTION)
    attending = 1 - recurrent / layers
    model = Model(
        quantization=precision,
        file_bytes=outline.file_bytes,
        read_bytes=outline.read_bytes,
        matmul_parameters=outline.matmul_parameters,
        layers=layers,
        query_width=attending * heads * head,
        kv_width=attending * 2 * int(getattr(config, "num_key_value_heads", None) or heads) * head,
        context=int(config.max_position_embeddings),
        kv_element=ONNX_KV_ELEMENT,
        state_bytes=FLOAT_BYTES * recurrent * int(config.hidden_size) * (config.conv_L_cache - 1) if recurrent else 0,
        running_bytes=ONNX_RUNTIME_BYTES,
    )
    return model, outline.embedding_parameters


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
