"""Putting a bundle together: base, adapters and manifest in one folder that appears as a whole."""

from __future__ import annotations

import datetime
import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekit_exporters.base import Base, GgufBase
from edgekit_exporters.gguf.adapter import AdapterSource, write_adapter_gguf, write_ready_adapter
from edgekit_exporters.gguf.base import quantization_of
from edgekit_exporters.gguf.end_tokens import end_metadata
from edgekit_exporters.gguf.metadata import rewrite_metadata
from edgekit_exporters.hf.templates import template_facts
from edgekit_exporters.onnx import base as onnx
from edgekit_exporters.onnx.graph_map import MAP_FILE
from edgekit_exporters.peft.canonical import CanonicalAdapter
from edgekit_exporters.peft.prompts import TakenPrompt
from edgekit_exporters.progress import stage
from edgekit_exporters.requantized import requantized_from
from edgekit_runtime.engines.memory import MIB, ONNX_RUNTIME_BYTES, default_context, running_bytes, score_bytes
from edgekit_runtime.errors import InputError
from edgekit_runtime.files.atomic import publish
from edgekit_runtime.formats.adapter import KEY_FAMILY, adapter_entry
from edgekit_runtime.formats.bundle import file_digest, is_bundle, verify_bundle
from edgekit_runtime.formats.end_tokens import KEY_END_TOKENS
from edgekit_runtime.formats.gguf import read_gguf
from edgekit_runtime.formats.kv_cache import with_kv_cache
from edgekit_runtime.formats.manifest import (
    BUNDLE_SCHEMA,
    F16,
    MANIFEST_FILE,
    AdapterEntry,
    BaseEntry,
    FileEntry,
    Manifest,
    PartEntry,
    Requires,
    StackEntry,
    StackPart,
)
from edgekit_runtime.formats.model_facts import gguf_facts
from edgekit_runtime.formats.onnx_adapter import SUFFIX
from edgekit_runtime.formats.onnx_base import DATA_FILE, MIXED_FILE, MODEL_FILE, VOCABULARY_FILE
from edgekit_runtime.formats.onnx_base import ENGINE as ONNX_ENGINE
from edgekit_runtime.formats.prompt_adapter import PROMPT_KIND

BASE_FOLDER = "base"
BASE_FILE = f"{BASE_FOLDER}/model.gguf"
PROJECTOR_FILE = f"{BASE_FOLDER}/projector.gguf"
ENGINE = "llama.cpp"
ANY_ISA = "any"  # of a plan whose target was not named
ADDS_EOS = "tokenizer.ggml.add_eos_token"
RUNTIME_REQUIREMENT = ">=0.1"


@dataclass(frozen=True)
class Defaults:
    """How a base is asked alone: its system prompt, and its sampling where a request says nothing."""

    system: str | None = None
    generation: dict[str, Any] | None = None


@dataclass(frozen=True)
class StackSource:
    """Adapters of a bundle that answer together: a scale over 0 for each name; the rest is as an adapter has it."""

    name: str
    scales: Mapping[str, float]
    system: str | None = None
    generation: dict[str, Any] | None = None
    output_schema: dict[str, Any] | None = None
    template_arguments: dict[str, Any] | None = None


@dataclass(frozen=True)
class BundlePlan:
    """What goes into a bundle.

    Attributes:
        name: the bundle's name.
        task: "text" or "caption".
        base: whose family the adapters have.  Those of a :class:`GgufBase` are GGUF files, which are copied.
        base_file: the GGUF that devices load, or the folder of an ONNX base.
        projector: what reads images for it, for captions.
        merged: adapters that are merged into ``base_file``; the first one's system prompt and defaults are the base's.
        adapters: those that stay separate files.
        stacks: of ``adapters``.
        fallback: who answers requests for ``auto`` that are for none of them: a name, "base" or "refuse"; None where
            devices choose no adapters.
        default_adapter: used when a request names none; None means the bare base.
        isa: instruction set that the target has to have (``ANY_ISA`` when no target was named).
        longest: most tokens of context that devices may serve; the base's own where None.
        defaults: of the base, where nothing is merged into it.
        kv_cache: type of the KV cache that devices keep.
    """

    name: str
    task: str
    base: Base | GgufBase
    base_file: Path
    merged: Sequence[AdapterSource]
    adapters: Sequence[AdapterSource]
    default_adapter: str | None
    isa: str
    version: str
    projector: Path | None = None
    longest: int | None = None
    defaults: Defaults = Defaults()
    kv_cache: str = F16
    stacks: Sequence[StackSource] = ()
    fallback: str | None = None

    @property
    def is_onnx(self) -> bool:
        """Whether the base is a folder that ONNX Runtime runs."""
        return self.base_file.is_dir()


@dataclass(frozen=True)
class Quality:
    """What a proof found: the manifest's ``quality``, and that of each adapter and stack by name."""

    bundle: dict[str, Any]
    adapters: dict[str, dict[str, Any]]


NOT_PROVEN = Quality({"gate": "skipped", "reference": None, "artifact": None}, {})


def write_bundle(plan: BundlePlan, output: Path, prove: Callable[[Path], Quality] | None = None) -> Manifest:
    """Write the bundle to ``output``; an earlier bundle there is replaced in one step.

    Args:
        plan: what goes into it.
        output: its folder.
        prove: called with the finished bundle's temporary folder, to which it may add files; what it raises leaves
            ``output`` as it was.

    Raises:
        InputError: an adapter doesn't fit, ``output`` holds something else, or the disk is full.
    """
    with publish(output, is_ours=is_bundle) as folder:
        with stage(f"writing the bundle {plan.name}"):
            manifest, entries = _write_files(plan, folder)
        if prove is not None:
            quality = prove(folder)
            manifest = replace(
                manifest,
                files=_files(folder),
                quality=quality.bundle,
                adapters=tuple(replace(entry, quality=quality.adapters.get(entry.name)) for entry in entries),
                stacks=tuple(replace(entry, quality=quality.adapters.get(entry.name)) for entry in manifest.stacks),
            )
            (folder / MANIFEST_FILE).write_bytes(manifest.dump())
        return verify_bundle(folder)


def _write_files(plan: BundlePlan, folder: Path) -> tuple[Manifest, tuple[AdapterEntry, ...]]:
    """Base, adapters and a manifest without a proof."""
    if plan.is_onnx:
        shutil.copytree(plan.base_file, folder / BASE_FOLDER, ignore=shutil.ignore_patterns(MAP_FILE))
    else:
        (folder / BASE_FOLDER).mkdir()
        asked_as = _asked_as(plan)
        if read_gguf(plan.base_file).metadata.get(ADDS_EOS):  # engines would end each prompt before its answer
            asked_as[ADDS_EOS] = False
        rewrite_metadata(plan.base_file, folder / BASE_FILE, asked_as)
    if plan.projector is not None:
        shutil.copyfile(plan.projector, folder / PROJECTOR_FILE)
    if plan.adapters:
        (folder / "adapters").mkdir()
    entries = tuple(_write_adapter(source, plan, folder) for source in plan.adapters)
    manifest = _manifest(plan, folder, entries)
    (folder / MANIFEST_FILE).write_bytes(manifest.dump())
    return manifest, entries


def _asked_as(plan: BundlePlan) -> dict[str, Any]:
    """Metadata of the base: a file may come from anywhere; the template is the one that adapters are trained with."""
    base = plan.base
    if isinstance(base, GgufBase):
        ends = {KEY_END_TOKENS: json.dumps(sorted(base.ends))} if base.ends else {}
        return base.template.metadata() | {KEY_FAMILY: base.family} | ends
    return template_facts(base.folder).metadata() | end_metadata(base.folder, plan.base_file)


def _write_adapter(source: AdapterSource, plan: BundlePlan, folder: Path) -> AdapterEntry:
    base = plan.base
    file = f"adapters/{source.name}-{source.version}{SUFFIX if plan.is_onnx else '.gguf'}"
    if isinstance(base, GgufBase):
        facts = write_ready_adapter(source, base, folder / file)
        return adapter_entry(facts, family=base.family, file=file, digest=file_digest(folder / file))
    if plan.is_onnx:
        from edgekit_exporters.onnx.adapter import write_adapter_onnx

        canonical: CanonicalAdapter | TakenPrompt = write_adapter_onnx(source, base, folder / file, plan.base_file)
    else:
        canonical = write_adapter_gguf(source, base, folder / file)
    prompt = canonical.virtual_tokens is not None
    return AdapterEntry(
        name=source.name,
        version=source.version,
        file=file,
        rank=canonical.rank,
        targets=tuple(canonical.targets),
        family=base.family,
        digest=file_digest(folder / file),
        system=source.system,
        generation=source.generation,
        schema=source.output_schema,
        template_arguments=source.template_arguments,
        kind=PROMPT_KIND if prompt else None,
        virtual_tokens=canonical.virtual_tokens,
        route=source.route,
    )


def _manifest(plan: BundlePlan, folder: Path, adapters: tuple[AdapterEntry, ...]) -> Manifest:
    facts = _onnx_facts(folder) if plan.is_onnx else _gguf_facts(plan, folder / BASE_FILE)
    asked_as = plan.merged[0] if plan.merged else None
    defaults = asked_as or plan.defaults
    files = _files(folder)
    digests = {entry.path: entry.sha256 for entry in files}
    return Manifest(
        schema=BUNDLE_SCHEMA,
        name=plan.name,
        version=plan.version,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        engine=ONNX_ENGINE if plan.is_onnx else ENGINE,
        task=plan.task,
        base=BaseEntry(
            file=facts.file,
            architecture=facts.architecture,
            parameters=facts.parameters,
            quantization=facts.quantization,
            context=facts.context,
            family=plan.base.family,
            digest=digests[facts.file],
            projector=PROJECTOR_FILE if plan.projector else None,
            projector_digest=digests.get(PROJECTOR_FILE),
            merged=tuple(source.name for source in plan.merged),
            system=defaults.system,
            generation=defaults.generation,
            schema=asked_as.output_schema if asked_as else None,
            template_arguments=asked_as.template_arguments if asked_as else None,
            parts=tuple(
                PartEntry(Path(entry.path).name, entry.path, entry.sha256)
                for entry in files
                if Path(entry.path).name in facts.parts and Path(entry.path).parts[0] == BASE_FOLDER
            ),
            requantized_from=requantized_from(plan.base.gguf, facts.quantization, merged=bool(plan.merged)),
            kv_cache=None if plan.kv_cache == F16 else plan.kv_cache,
        ),
        adapters=adapters,
        default_adapter=plan.default_adapter,
        files=files,
        requires=Requires(runtime=RUNTIME_REQUIREMENT, memory_mb=_memory_mb(files, facts.running), isa=plan.isa),
        quality=NOT_PROVEN.bundle,
        stacks=tuple(_stack_entry(source, adapters) for source in plan.stacks),
        auto=None if plan.fallback is None else {"fallback": plan.fallback},
    )


def _stack_entry(source: StackSource, adapters: Sequence[AdapterEntry]) -> StackEntry:
    digests = {entry.name: entry.digest for entry in adapters}
    return StackEntry(
        name=source.name,
        adapters=tuple(StackPart(name, float(scale), digests[name]) for name, scale in source.scales.items()),
        system=source.system,
        generation=source.generation,
        schema=source.output_schema,
        template_arguments=source.template_arguments,
    )


def _files(folder: Path) -> tuple[FileEntry, ...]:
    return tuple(
        FileEntry(path.relative_to(folder).as_posix(), path.stat().st_size, file_digest(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MANIFEST_FILE
    )


@dataclass(frozen=True)
class _BaseFacts:
    """What a manifest says of a base; ``running`` is what running it takes beside the bundle's files, in bytes."""

    file: str
    architecture: str
    parameters: int
    quantization: str
    context: int
    running: int
    parts: Sequence[str] = ()


def _gguf_facts(plan: BundlePlan, path: Path) -> _BaseFacts:
    gguf = read_gguf(path)
    architecture = str(gguf.metadata["general.architecture"])
    facts = with_kv_cache(gguf_facts(gguf), plan.kv_cache, plan.base.family)
    quantization = quantization_of(path)
    if quantization is None:
        raise InputError(f"{plan.base_file} doesn't tell its quantization", "name one with --quantize")
    parameters = sum(math.prod(tensor.shape) for tensor in gguf.tensors.values())
    context = min(facts.context, plan.longest or facts.context)
    served = default_context(context)
    running = running_bytes(facts) + score_bytes(facts) * served + facts.cache_bytes(served)
    return _BaseFacts(BASE_FILE, architecture, parameters, quantization, context, running)


def _onnx_facts(folder: Path) -> _BaseFacts:
    base = folder / BASE_FOLDER
    facts = onnx.facts_of(base)
    return _BaseFacts(
        file=f"{BASE_FOLDER}/{MODEL_FILE}",
        architecture=facts.architecture,
        parameters=facts.parameters,
        quantization=facts.precision,
        context=facts.context,
        running=facts.cache * default_context(facts.context) // facts.context + ONNX_RUNTIME_BYTES,
        parts=(MIXED_FILE, DATA_FILE, VOCABULARY_FILE),
    )


def _memory_mb(files: Sequence[FileEntry], running: int) -> int:
    """What running the bundle needs, all adapters loaded, one request at a time with the default context."""
    return -(-(sum(entry.size for entry in files) + running) // MIB)
