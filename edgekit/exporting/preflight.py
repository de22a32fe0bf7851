"""What an export or a merge was asked for, checked in a moment: before torch is imported or a base fetched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgekit.bases.resolve import check_project_base
from edgekit.bases.weights import deployed_weights
from edgekit.combining.gate import check_parts
from edgekit.data import load_rows
from edgekit.exporting.options import ExportOptions
from edgekit.project import AUTO, Adapter, Project
from edgekit.project.folders import adapter_folder, bundle_folder, is_merged_folder, merged_folder, trained_folder
from edgekit.project.run_record import read_record
from edgekit.routing.rows import check_auto
from edgekit.targets.devices import device_profile
from edgekit.training.kept import as_trained
from edgekit.training.preflight import check_virtual
from edgekit.training.record import check_folded
from edgekit_exporters.gguf.quantize import QUANTIZATIONS, canonical_quantization, check_tensor_types
from edgekit_exporters.onnx.base import PRECISIONS as ONNX_TYPES
from edgekit_exporters.onnx.builder import require_onnx
from edgekit_runtime.errors import InputError, UsageError
from edgekit_runtime.files.atomic import check_replaceable
from edgekit_runtime.formats.bundle import is_bundle
from edgekit_runtime.formats.kv_cache import refuse_for_onnx
from edgekit_runtime.formats.manifest import BASE
from edgekit_runtime.hints import did_you_mean


def check_merge(project: Project, names: Sequence[str] | None, *, output: Path | None = None) -> None:
    """Look at all that a merge needs.

    Raises:
        InputError: an adapter that isn't trained, no such base, an output that can't be replaced.
    """
    adapters = project.named(names) if names else [project.adapter()]
    for adapter in adapters:
        check_virtual(replace(project, export=replace(project.export, mode="merged")), adapter)
        trained_folder(project, adapter)
    check_replaceable(merged_folder(project, adapters, output), is_merged_folder)
    check_project_base(project)


def check_export(project: Project, names: Sequence[str] | None, options: ExportOptions) -> None:
    """Look at all that :func:`~edgekit.exporting.export.export` was asked for.

    Raises:
        UsageError: an unknown format, mode, quantisation, type or device, options that contradict each other, or ones
            that an adapter wasn't trained for.
        InputError: an adapter that isn't trained, no such base, bad rows, an output that can't be replaced.
        GateRefused: a combined adapter that loses too much on a part, and nobody accepted that.
    """
    project = options.applied_to(as_trained(project))
    settings, quantize = project.export, options.quantize
    _check_type(project, quantize)
    _check_limits(quantize or settings.quantize, options)
    if options.accept_loss is not None and not options.accept_loss.strip():
        raise UsageError("--accept-loss has no reason", "say why the loss is acceptable")
    check_tensor_types(settings.tensor_types)
    if settings.device:
        device_profile(settings.device)
    adapters = project.named(names or list(project.adapters))
    if settings.mode == "merged" and len(adapters) != 1:
        raise UsageError("a merged bundle holds one adapter", "name the one to merge")
    records = {adapter.name: read_record(adapter_folder(project, adapter)) for adapter in adapters}
    for adapter in adapters:
        check_virtual(project, adapter)
        check_folded(adapter.name, records[adapter.name], settings, quantize or settings.quantize)
    check_replaceable(bundle_folder(project, options.output), is_bundle)
    _check_trained(project, adapters)
    for adapter in adapters:
        record = records[adapter.name]
        if adapter.combined is not None and record is not None and options.accept_loss is None:
            check_parts(adapter.name, record["combined"], project.gate)
    if settings.mode == "separate":
        stacks = whole_stacks(project, [adapter.name for adapter in adapters])
        default_adapter(settings.default_adapter, [adapter.name for adapter in adapters], stacks)
    _check_rows(project, adapters, quantize or settings.quantize)
    check_auto(project, adapters)
    check_project_base(project)


def _check_trained(project: Project, adapters: Sequence[Adapter]) -> None:
    """All of them; where some are, they can be exported without the others."""
    missing: list[InputError] = []
    trained: list[str] = []
    for adapter in adapters:
        try:
            trained_folder(project, adapter)
            trained.append(adapter.name)
        except InputError as error:
            missing.append(error)
    if not missing:
        return
    first, others = missing[0], f", or export what is there: `edgekit export {' '.join(trained)}`"
    raise InputError(first.problem, f"{first.hint}{others if trained else ''}")


def whole_stacks(project: Project, names: Sequence[str]) -> list[str]:
    """The stacks that go along with the adapters ``names``: those whose adapters all do, as files of their own."""
    if project.export.mode == "merged":
        return []
    return [name for name, stack in project.stacks.items() if stack.scales.keys() <= set(names)]


def default_adapter(wanted: str | None, names: Sequence[str], stacks: Sequence[str] = ()) -> str | None:
    """Who answers when a request names nobody: ``wanted``, a stack too, else the first adapter; None for the bare base.

    The bare base has to be asked for by its name, as nobody trains adapters for a base that answers.

    Raises:
        InputError: ``wanted`` is neither among ``names`` nor among ``stacks``.
    """
    if wanted is None:
        return names[0]
    if wanted == BASE:
        return None
    if wanted not in (*names, *stacks):
        problem = f"default_adapter {wanted} is not among the exported adapters"
        raise InputError(problem, did_you_mean(wanted, (*names, *stacks, BASE)))
    return wanted


def _check_type(project: Project, quantize: str | None) -> None:
    settings = project.export
    if settings.format == "onnx":
        if project.task == "caption":
            # GenAI's builder has image models of its own list only, adapters for none of them.
            problem = "there is no ONNX for captions: image models run on llama.cpp"
            raise UsageError(problem, "export with --format gguf")
        refuse_for_onnx(settings.kv_cache)
        deployed_weights(settings, None, quantize)
        require_onnx()
        return
    for each in (quantize, settings.quantize):
        if each is not None and each.lower() in ONNX_TYPES and each.upper() not in QUANTIZATIONS:
            raise UsageError(
                f"{each} is a type of ONNX, and the format is gguf", "use Q8_0 or Q4_0, say, or --format onnx"
            )
        if each is not None and each != AUTO:
            canonical_quantization(each)


def _check_limits(quantize: str | None, options: ExportOptions) -> None:
    if options.refit_rank is not None and options.refit_rank < 1:
        raise UsageError(f"a rank of {options.refit_rank} is not possible", "use at least 1")
    for name, limit in (("--max-mb", options.max_mb), ("--min-decode-tps", options.min_decode_tps)):
        if limit is None:
            continue
        if not 0 < limit < float("inf"):  # NaN is nowhere
            raise UsageError(f"{name} {limit:g} is not possible", "use more than 0")
        if quantize != AUTO:
            raise UsageError(f"{name} is a limit for --quantize auto", f"add --quantize auto, or leave {name} out")


def _check_rows(project: Project, adapters: Sequence[Adapter], quantize: str | None) -> None:
    """The evaluation rows of the proof; without any there is none, which the export tells."""
    unproven = project.gate.rows == 0 or any(adapter.data is None and project.data is None for adapter in adapters)
    if unproven and quantize == AUTO and project.export.format == "gguf":
        raise UsageError("--quantize auto measures on evaluation rows, and there are none", "name a type, Q8_0 say")
    for adapter in () if unproven else adapters:
        load_rows(project.data_for(adapter.name).eval)
