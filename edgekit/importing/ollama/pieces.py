"""The base and the adapters of a model of Ollama, as exporters take them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgekit.bases.resolve import gguf_family, resolve_base
from edgekit.bases.virtual_probe import check_virtual_tokens
from edgekit.bases.weights import GGUF, tell_requantized, weights_named
from edgekit.exporting.versions import version_now
from edgekit.importing.ollama.model import OllamaModel
from edgekit.training.engine_fit import check_adapted
from edgekit_exporters.base import Base, GgufBase
from edgekit_exporters.gguf.adapter import AdapterSource, separate_adapter, write_adapter_gguf
from edgekit_exporters.gguf.base import base_gguf, quantization_of
from edgekit_exporters.gguf.quantize import canonical_quantization, quantize
from edgekit_exporters.gguf.split import joined
from edgekit_exporters.hf.templates import template_source, with_template
from edgekit_exporters.peft.files import find_adapter
from edgekit_exporters.peft.prompts import TakenPrompt
from edgekit_exporters.progress import stage
from edgekit_runtime.errors import InputError, UsageError
from edgekit_runtime.formats.bundle import Bundle
from edgekit_runtime.formats.end_tokens import KEY_END_TOKENS, end_tokens_of
from edgekit_runtime.formats.gguf import read_gguf
from edgekit_runtime.formats.manifest import name_from
from edgekit_runtime.formats.onnx_base import ENGINE as ONNX
from edgekit_runtime.prompts.template import ChatTemplate, TemplateFacts, tokens_in

PLAIN_NAMES = ("adapter", "adapter_model", "model", "lora", "ggml-adapter-model")  # of files, that tell nothing


def base_of_model(
    model: OllamaModel, scratch: Path, kind: str | None, template: Path | str | None
) -> tuple[Base | GgufBase, Path]:
    """The base, and the GGUF that devices get of it.

    Args:
        model: its base is on this machine.
        scratch: a folder that is there for as long as the file is needed.
        kind: another type for the base.
        template: another chat template: a file, or a known one's name.

    Raises:
        UsageError: no such type.
        InputError: no sound base.
    """
    assert model.base is not None
    if model.base.is_dir():
        return _of_folder(model, model.base, kind, template)
    file, family = joined(model.base), gguf_family(model.base)
    base = gguf_base(file, family, template)
    if kind is None or canonical_quantization(kind) == quantization_of(file):
        return base, file
    tell_requantized(file, weights_named(kind, file))
    made = scratch / "base.gguf"
    with stage(f"quantizing the base to {canonical_quantization(kind)}"):
        quantize(file, made, canonical_quantization(kind))
    return base, made


def gguf_base(file: Path, family: str, template: Path | str | None = None) -> GgufBase:
    """A GGUF file as it is, asked with its own chat template or another one.

    Raises:
        InputError: there is none, or a broken one.
    """
    header = read_gguf(file)
    facts = TemplateFacts.read(header) if template is None else _facts(template, tokens_in(header))
    ChatTemplate.of(facts).try_out()
    tokens = len(header.metadata.get("tokenizer.ggml.tokens", ()))
    return GgufBase(family, file, facts, end_tokens_of(header.metadata.get(KEY_END_TOKENS), tokens, file))


def base_of_bundle(bundle: Bundle) -> GgufBase:
    """The base of an open bundle.

    Raises:
        InputError: it is for another engine.
    """
    if bundle.manifest.engine == ONNX:
        raise InputError(f"the bundle {bundle.manifest.name} is for ONNX Runtime", "give one for llama.cpp")
    return gguf_base(bundle.base_path, bundle.manifest.base.family)


def adapter_sources(
    model: OllamaModel, name: str, generation: dict[str, Any] | None, refit_rank: int | None
) -> list[AdapterSource]:
    """Each ADAPTER, under the model's name where there is one, else under a name of its own."""
    version = version_now()
    names = [name] if len(model.adapters) == 1 else list(_names(model.adapters))
    return [
        AdapterSource(each, version, path, model.system, generation, refit_rank=refit_rank)
        for each, path in zip(names, model.adapters, strict=True)
    ]


def as_gguf(source: AdapterSource, base: GgufBase, scratch: Path) -> AdapterSource:
    """The same adapter as a GGUF; PEFT's is converted by way of the base's float weights.

    Raises:
        InputError: it isn't sound, or is of another base.
    """
    if find_adapter(source.folder).is_gguf:
        return source
    unpacked = replace(resolve_base(str(base.gguf)), family=base.family)
    with stage(f"reading adapter {source.name}"):
        separate = separate_adapter(source, unpacked)
    if isinstance(separate, TakenPrompt):
        check_virtual_tokens(unpacked)
    else:
        check_adapted(separate.layers, unpacked)
    made = scratch / f"{source.name}.converted.gguf"
    write_adapter_gguf(source, unpacked, made)
    return replace(source, folder=made)


def _of_folder(model: OllamaModel, folder: Path, kind: str | None, template: Path | str | None) -> tuple[Base, Path]:
    base = resolve_base(str(folder))
    if base.vision is not None or model.projector is not None:
        raise InputError(f"{folder} with images can't be imported", "export it: `edgekit init --template caption`")
    base = base if template is None else with_template(base, template)
    weights = weights_named(kind, None)
    if weights.format != GGUF or weights.quantization is None:
        raise UsageError(f"{kind} is no type of GGUF files", "use Q8_0 or Q4_0, say")
    return base, base_gguf(base, weights.quantization)


def _facts(template: Path | str, tokens: dict[str, str]) -> TemplateFacts:
    return TemplateFacts.of(template_source(template), tokens)


def _names(paths: list[Path]) -> Iterator[str]:
    """Names by those of the files, each once."""
    taken: set[str] = set()
    for path in paths:
        plain = path.stem if path.is_file() else path.name
        found = name_from(path.resolve().parent.name if plain.lower() in PLAIN_NAMES else plain) or "adapter"
        name = next(each for each in (found, *(f"{found}-{n}" for n in range(2, len(paths) + 2))) if each not in taken)
        taken.add(name)
        yield name
