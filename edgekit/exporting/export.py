"""From a project's trained adapters to a bundle that devices run: prepare, prove, publish."""

from __future__ import annotations

import functools
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit.bases.probe.window import exact_context
from edgekit.bases.resolve import project_base
from edgekit.bases.virtual_probe import check_virtual_tokens
from edgekit.bases.weights import ONNX, Weights, deployed_recipe, deployed_weights, tell_requantized, with_blocks
from edgekit.evaluation.stacked import stack_source, stack_subject
from edgekit.exporting.options import ExportOptions
from edgekit.exporting.preflight import check_export, default_adapter, whole_stacks
from edgekit.exporting.versions import version_now
from edgekit.project import Adapter, Project
from edgekit.project.folders import adapter_folder, bundle_folder
from edgekit.proof.gate import NotGood, Refused, prove_bundle
from edgekit.proof.ladder import Rung, climb, measure_rung
from edgekit.proof.origin import Origin
from edgekit.proof.reference import Reference, take_reference
from edgekit.proof.report import remove_report
from edgekit.routing.rows import evaluation_texts
from edgekit.targets.devices import device_profile
from edgekit.training.card import CardScore, add_scores
from edgekit.training.engine_fit import check_adapted
from edgekit.training.finished import (
    adapter_source,
    folded_digest,
    run_record,
    shipped_base,
    trained_weights,
    write_folded,
)
from edgekit.training.kept import as_trained
from edgekit.training.record import check_folded
from edgekit_exporters.base import Base
from edgekit_exporters.bundle import ANY_ISA, BundlePlan, Quality, write_bundle
from edgekit_exporters.gguf.adapter import AdapterSource, separate_adapter
from edgekit_exporters.gguf.base import gguf_from_folder
from edgekit_exporters.gguf.metadata import rewrite_metadata
from edgekit_exporters.gguf.outline import source_gguf
from edgekit_exporters.gguf.projector import projector_gguf
from edgekit_exporters.onnx.base import onnx_from_folder
from edgekit_exporters.peft.intake import take_in
from edgekit_exporters.peft.merge import merge_to_folder
from edgekit_exporters.peft.prompts import TakenPrompt
from edgekit_exporters.peft.ways_out import check_mergeable
from edgekit_exporters.progress import stage
from edgekit_runtime.errors import UsageError
from edgekit_runtime.formats.adapter import KEY_FAMILY
from edgekit_runtime.formats.gguf import read_gguf
from edgekit_runtime.formats.kv_cache import with_kv_cache
from edgekit_runtime.formats.manifest import F16, Manifest
from edgekit_runtime.formats.model_facts import gguf_facts
from edgekit_runtime.prompts.template import stopped_clock

log = logging.getLogger(__name__)


@stopped_clock()
def export(
    project: Project,
    names: Sequence[str] | None = None,
    *,
    output: Path | None = None,
    format: str | None = None,
    mode: str | None = None,
    quantize: str | None = None,
    kv_cache: str | None = None,
    device: str | None = None,
    imatrix: bool = False,
    tensor_types: Mapping[str, str] | None = None,
    refit_rank: int | None = None,
    accept_loss: str | None = None,
    max_mb: float | None = None,
    min_decode_tps: float | None = None,
) -> tuple[Path, Manifest]:
    """Export adapters of ``project`` with their base as a bundle.

    Args:
        project: a loaded project file.
        names: adapters (all of the project when None).
        output: bundle folder; ``dist/NAME`` in the project folder when None.
        format: "gguf" or "onnx"; overrides the project file, as do the next four.
        mode: "separate" keeps adapters as files beside the base, "merged" folds one into it.
        quantize: GGUF quantisation of the base, or an ONNX precision; "auto" measures several GGUF quantisations and
            takes the smallest that passes the gate.
        kv_cache: type of the KV cache that devices keep, and that the proof asks with: one of ``KV_CACHES``.
        device: device profile that the bundle is for.
        imatrix: weigh the quantiser by the training rows, as ``export.imatrix`` does.
        tensor_types: besides those of the project file; see :class:`~edgekit.project.Export`.
        refit_rank: rank of the closest LoRA for adapters that aren't additive (DoRA); such are refused when None.
        accept_loss: the reason to ship files that answer worse than the trained model, or no better than the bare
            base; it goes into the manifest.
        max_mb: with "auto", the largest base and adapters together, 10^6 bytes.
        min_decode_tps: with "auto", the least decode speed on this machine, tokens per second.

    Returns:
        The bundle's folder and its manifest.

    Raises:
        InputError: an adapter that isn't trained, doesn't fit, can't be separate, changes nothing or computes no
            numbers; an output that can't be replaced.
        UsageError: several adapters with mode "merged", or an unknown quantisation or device.
        GateRefused: the exported files answer worse than the trained model, or the adapter no better than its base; an
            earlier bundle stays in place.
    """
    options = ExportOptions(
        output=output,
        format=format,
        mode=mode,
        quantize=quantize,
        kv_cache=kv_cache,
        device=device,
        imatrix=imatrix,
        tensor_types=tensor_types or {},
        refit_rank=refit_rank,
        accept_loss=accept_loss,
        max_mb=max_mb,
        min_decode_tps=min_decode_tps,
    )
    check_export(project, names, options)
    project = as_trained(project, tell=True)
    prepared = _prepare(options.applied_to(project), names, options)
    references = _references(prepared)
    folder = bundle_folder(project, output)
    prove = _prover(prepared, references, options, folder)
    with tempfile.TemporaryDirectory(prefix="edgekit-export-") as scratch:
        if prepared.weights.quantization is not None:
            manifest = write_bundle(prepared.plan(prepared.weights, Path(scratch)), folder, prove)
        else:
            assert references is not None  # check_export has seen evaluation rows
            assert prove is not None
            measure = functools.partial(
                measure_rung,
                references=references,
                gate=project.gate,
                max_mb=max_mb,
                min_decode_tps=min_decode_tps,
            )
            manifest = _smallest_that_passes(prepared, folder, Path(scratch), measure, prove)
    remove_report(_refused_report(folder))  # of what isn't there: an earlier export, or a smaller quantisation
    _tell_cards(project, manifest)
    return folder, manifest


def _prepare(project: Project, names: Sequence[str] | None, options: ExportOptions) -> _Prepared:
    """Find the base and read the adapters: refuses in seconds what proving would take minutes to get to."""
    settings = project.export
    adapters = [project.adapter(name) for name in (names or project.adapters)]
    base = project_base(project)
    weights = deployed_weights(settings, base.gguf, options.quantize)
    tell_requantized(base.gguf, weights, merged=settings.mode == "merged")
    if weights.format == ONNX and (settings.imatrix or settings.tensor_types):
        log.warning("imatrix and tensor_types are for GGUF; they change nothing here")
    _check_cache(base, settings.kv_cache)
    sources = [replace(adapter_source(project, each, base), refit_rank=options.refit_rank) for each in adapters]
    shipped = shipped_base(project, adapters, base)
    if shipped is not base and settings.mode == "merged":
        raise UsageError(f"{adapters[0].name} has trained the connector, which isn't merged", "leave out --mode merged")
    for adapter, source in zip(adapters, sources, strict=True):
        with stage(f"reading adapter {adapter.name}"):
            trained_weights(project, adapter, base)
            check_folded(adapter.name, run_record(project, adapter), settings, weights.label)
            if settings.mode == "separate":
                separate = separate_adapter(source, base, onnx=weights.format == ONNX)
                if isinstance(separate, TakenPrompt):
                    check_virtual_tokens(base)
                elif weights.format != ONNX:
                    check_adapted(separate.layers, base)
            else:
                check_mergeable(take_in(source.folder, base))
    longest = None if weights.format == ONNX else exact_context(base)
    if longest is not None:
        log.warning(
            "devices will serve at most %d tokens of context: %s looks back so far, and llama.cpp has no such window"
            " for it",
            longest,
            base.name,
        )
    stacks = [stack_subject(project, name) for name in _stacks(project, adapters)]
    return _Prepared(project, base, shipped, weights, adapters, sources, stacks, longest)


def _stacks(project: Project, adapters: Sequence[Adapter]) -> list[str]:
    """The stacks that go along; those that don't are told."""
    exported = [adapter.name for adapter in adapters]
    whole = whole_stacks(project, exported)
    for name, stack in project.stacks.items() if project.export.mode == "separate" else ():
        if name not in whole:
            missing = sorted(stack.scales.keys() - set(exported))
            log.warning("the stack %s is left out: %s is not exported", name, ", ".join(missing))
    return whole


def _check_cache(base: Base, kv_cache: str) -> None:
    """Refuse a KV cache that the engine can't have for this base: no weight is read for it."""
    if kv_cache != F16:
        with source_gguf(base) as source:
            with_kv_cache(gguf_facts(read_gguf(source)), kv_cache, base.name)


def _prover(
    prepared: _Prepared, references: Sequence[Reference] | None, options: ExportOptions, folder: Path
) -> Callable[..., Quality] | None:
    """What holds a written bundle against ``references``; None where nothing can be proven."""
    if references is None:
        return None
    project, stacks = prepared.project, [stack.name for stack in prepared.stacks]
    origin = Origin.of(project, prepared.adapters, prepared.base, project.export.device, stacks)
    return functools.partial(
        prove_bundle,
        references=references,
        gate=prepared.project.gate,
        origin=origin,
        accept_loss=options.accept_loss,
        refused_report=_refused_report(folder),
        routed={each.name: evaluation_texts(project, each.name) for each in prepared.adapters} if project.auto else {},
    )


def _refused_report(folder: Path) -> Path:
    """Where the report of a bundle goes that is refused."""
    return folder.with_name(f"{folder.name}-refused")


def _tell_cards(project: Project, manifest: Manifest) -> None:
    """What the proof has found, into the model cards of the adapters."""
    for entry in manifest.adapters:
        if entry.quality is None:
            continue
        found = entry.quality
        engines = (("torch", found["runs_on"], "torch_score"), (manifest.engine, found["quantization"], "device_score"))
        rows, metric = found["rows"], found["metric"]
        scores = [CardScore(f"{engine}, {at}", rows, metric, None, found[key]) for engine, at, key in engines]
        add_scores(adapter_folder(project, project.adapter(entry.name)), scores)


@dataclass(frozen=True)
class _Prepared:
    """What is exported; ``shipped`` is ``base``, or the one with a trained connector.

    ``longest`` bounds the context that devices serve.
    """

    project: Project
    base: Base
    shipped: Base
    weights: Weights
    adapters: list[Adapter]
    sources: list[AdapterSource]
    stacks: list[Adapter]
    longest: int | None

    def plan(self, weights: Weights, scratch: Path) -> BundlePlan:
        merged = self.project.export.mode == "merged"
        separate = [] if merged else self.sources
        settings, names = self.project.export, [source.name for source in separate]
        stacks = [stack.name for stack in self.stacks]
        base_file, auto = self._base_file(weights, scratch), self.project.auto
        if auto is not None:
            from edgekit.routing.make import make_heads  # it loads the engine

            heads = make_heads(self.project, self.adapters, base_file)
            separate = [replace(source, route=heads[source.name].as_json()) for source in separate]
        return BundlePlan(
            name=settings.name or self.project.project,
            version=version_now(),
            task=self.project.task,
            base=self.shipped,
            base_file=base_file,
            projector=self._projector(),
            merged=self.sources if merged else [],
            adapters=separate,
            default_adapter=default_adapter(settings.default_adapter, names, stacks) if names else None,
            isa=ANY_ISA if settings.device is None else device_profile(settings.device).isa,
            longest=self.longest,
            kv_cache=settings.kv_cache,
            stacks=[stack_source(self.project, stack, self.base) for stack in self.stacks],
            fallback=None if auto is None else auto.fallback,
        )

    def _projector(self) -> Path | None:
        if self.project.task != "caption":
            return None
        return projector_gguf(self.shipped, self.project.export.projector)

    def _base_file(self, weights: Weights, scratch: Path) -> Path:
        if self.project.export.mode == "merged":
            return self._merged_base(weights, scratch)
        file = with_blocks(self.project, self.base, weights).blocks
        assert file is not None  # devices run blocks
        if self.shipped is self.base:
            return file
        named = scratch / f"{weights.label}.gguf"
        rewrite_metadata(file, named, {KEY_FAMILY: self.shipped.family})
        return named

    def _merged_base(self, weights: Weights, scratch: Path) -> Path:
        folder, file = scratch / "merged", scratch / f"{weights.label}.{weights.format}"
        if folded_digest(self.project, self.adapters[0]) is not None:
            write_folded(self.project, self.adapters[0], self.base, file)
            return file
        if not folder.exists():
            self._merge(folder)
        if file.exists():
            return file
        if weights.format == ONNX:
            onnx_from_folder(folder, self.base, weights.label, file)
        else:
            recipe = deployed_recipe(self.project, self.base, weights.label)
            gguf_from_folder(folder, file, recipe, like=self.base.gguf)
        return file

    def _merge(self, folder: Path) -> None:
        with stage(f"merging {self.sources[0].name} into the base"):
            merge_to_folder(self.base, [self.sources[0].folder], folder)


def _smallest_that_passes(
    prepared: _Prepared,
    output: Path,
    scratch: Path,
    measure: Callable[[Path], Rung],
    prover: Callable[..., Quality],
) -> Manifest:
    def rung(quantization: str) -> Rung:
        bundle = scratch / "rung"
        write_bundle(prepared.plan(replace(prepared.weights, quantization=quantization), scratch), bundle)
        return measure(bundle)

    rungs = climb(rung)
    refused: Refused | None = None
    for number, each in enumerate(rungs):
        if each.refused:
            break
        try:
            plan = prepared.plan(replace(prepared.weights, quantization=each.quantization), scratch)
            return write_bundle(plan, output, functools.partial(prover, ladder=list(rungs)))
        except NotGood:  # a larger one answers no better than the trained model does
            raise
        except Refused as error:  # its token distributions are fine, its answers are not: the next larger one
            log.warning("%s is refused: %s", each.quantization, "; ".join(error.reasons))
            rungs[number] = replace(each, refused=error.reasons)
            refused = error
    assert refused is not None  # climb raises when there is nothing to try
    raise refused


def _references(prepared: _Prepared) -> list[Reference] | None:
    """What the trained models say, or None where nothing can be proven: that is told, and stands in the manifest."""
    project, adapters = prepared.project, prepared.adapters
    if project.gate.rows == 0:
        log.warning("the proof is switched off (gate.rows: 0): the manifest will say so")
        return None
    unproven = [adapter.name for adapter in adapters if adapter.data is None and project.data is None]
    if unproven:
        log.warning("not proven, as there are no evaluation rows for %s", ", ".join(unproven))
        return None
    references = []
    for adapter in (*adapters, *prepared.stacks):
        references.append(take_reference(project, adapter, project.gate.rows))
    return references
