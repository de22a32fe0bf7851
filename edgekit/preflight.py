"""What a command was asked for, checked in a moment: before torch is imported, a base fetched or a model loaded.

Each function takes what the function of the work takes, and raises what that would raise minutes later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from edgekit.bases.resolve import check_base
from edgekit.bases.weights import deployed_weights
from edgekit.data import load_rows
from edgekit.project import AUTO, FORMATS, MODES, Adapter, Project
from edgekit.project.folders import (
    adapter_folder,
    bundle_folder,
    is_adapter_folder,
    is_merged_folder,
    merged_folder,
    trained_folder,
)
from edgekit.targets.devices import device_profile
from edgekit_exporters.gguf.quantize import QUANTIZATIONS, canonical_quantization, check_tensor_types
from edgekit_exporters.hf.templates import template_source
from edgekit_exporters.onnx.base import PRECISIONS as ONNX_TYPES
from edgekit_exporters.onnx.builder import require_onnx
from edgekit_runtime.bundle import is_bundle, read_manifest
from edgekit_runtime.choices import did_you_mean
from edgekit_runtime.errors import InputError, UsageError
from edgekit_runtime.publish import check_replaceable, check_writable


def check_train(project: Project, names: Sequence[str]) -> None:
    """Look at all that training ``names`` needs.

    Raises:
        UsageError: an adapter that was trained elsewhere.
        InputError: no such adapter or base, bad rows, or an adapter folder that can't be replaced.
    """
    for name in names:
        adapter = project.adapter(name)
        if adapter.path is not None:
            raise UsageError(
                f"adapter {adapter.name} was trained elsewhere ({adapter.path})", "it is exported as it is"
            )
        files = project.data_for(name)
        load_rows(files.train)
        load_rows(files.eval)
        check_replaceable(adapter_folder(project, adapter), is_adapter_folder)
    _check_base(project)


def check_evaluate(
    project: Project, name: str | None, *, artifact: Path | None = None, output: Path | None = None
) -> None:
    """Look at all that an evaluation needs.

    Raises:
        InputError: no such adapter, base or bundle, bad rows, or a file that can't be written.
    """
    adapter = project.adapter(name)
    load_rows(project.data_for(adapter.name).eval)
    if output is not None:
        check_writable(output)
    _check_base(project)
    if artifact is None or artifact.suffix == ".gguf":
        trained_folder(project, adapter)
    if artifact is None:
        return
    if not artifact.exists():
        raise InputError(f"there is no bundle at {artifact}", "give a bundle's folder or .tar, or a GGUF base")
    if artifact.is_dir():
        manifest = read_manifest(artifact)
        there = [*manifest.base.merged, *(entry.name for entry in manifest.adapters)]
        if adapter.name not in there:
            raise InputError(f"{artifact} has no adapter {adapter.name}", "export it with `edgekit export`")


def check_merge(project: Project, names: Sequence[str] | None, *, output: Path | None = None) -> None:
    """Look at all that a merge needs.

    Raises:
        InputError: an adapter that isn't trained, no such base, an output that can't be replaced.
    """
    adapters = named_once(project, names) if names else [project.adapter()]
    for adapter in adapters:
        trained_folder(project, adapter)
    check_replaceable(merged_folder(project, adapters, output), is_merged_folder)
    _check_base(project)


def with_options(
    project: Project,
    *,
    format: str | None = None,
    imatrix: bool = False,
    tensor_types: Mapping[str, str] | None = None,
) -> Project:
    """``project`` with what an export was asked for in the place of its export settings.

    Raises:
        UsageError: no such format.
    """
    settings = replace(
        project.export,
        format=format or project.export.format,
        imatrix=imatrix or project.export.imatrix,
        tensor_types={**project.export.tensor_types, **(tensor_types or {})},
    )
    if settings.format not in FORMATS:
        raise UsageError(f"there is no format {settings.format}", did_you_mean(settings.format, FORMATS))
    return replace(project, export=settings)


def check_export(
    project: Project,
    names: Sequence[str] | None = None,
    *,
    output: Path | None = None,
    format: str | None = None,
    mode: str | None = None,
    quantize: str | None = None,
    device: str | None = None,
    imatrix: bool = False,
    tensor_types: Mapping[str, str] | None = None,
    refit_rank: int | None = None,
    accept_loss: str | None = None,
    max_mb: float | None = None,
    min_decode_tps: float | None = None,
) -> None:
    """Look at all that :func:`~edgekit.exporting.export.export` was asked for.

    Raises:
        UsageError: an unknown format, mode, quantisation, type or device, or options that contradict each other.
        InputError: an adapter that isn't trained, no such base, bad rows, an output that can't be replaced.
    """
    project = with_options(project, format=format, imatrix=imatrix, tensor_types=tensor_types)
    settings = project.export
    mode = mode or settings.mode
    if mode not in MODES:
        raise UsageError(f"there is no mode {mode}", did_you_mean(mode, MODES))
    _check_type(project, quantize)
    _check_limits(quantize or settings.quantize, refit_rank, max_mb, min_decode_tps)
    if accept_loss is not None and not accept_loss.strip():
        raise UsageError("--accept-loss has no reason", "say why the loss is acceptable")
    check_tensor_types(settings.tensor_types)
    if device or settings.device:
        device_profile(str(device or settings.device))
    adapters = named_once(project, names or list(project.adapters))
    if mode == "merged" and len(adapters) != 1:
        raise UsageError("a merged bundle holds one adapter", "name the one to merge")
    check_replaceable(bundle_folder(project, output), is_bundle)
    for adapter in adapters:
        trained_folder(project, adapter)
    if mode == "separate":
        default_adapter(settings.default_adapter, [adapter.name for adapter in adapters])
    _check_rows(project, adapters, quantize or settings.quantize)
    _check_base(project)


def _check_base(project: Project) -> None:
    check_base(project.base, relative_to=project.folder)
    if project.chat_template is not None:
        template_source(project.chat_template)


def named_once(project: Project, names: Sequence[str]) -> list[Adapter]:
    """The adapters called ``names``.

    Raises:
        UsageError: one is named twice, which would make it work twice as much, or be listed twice.
        InputError: no such adapter.
    """
    twice = next((name for name in names if list(names).count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"the adapter {twice} is named twice", "name it once")
    return [project.adapter(name) for name in names]


def default_adapter(wanted: str | None, names: Sequence[str]) -> str | None:
    """``wanted``, which has to be one of the exported adapters.

    Raises:
        InputError: it isn't.
    """
    if wanted is not None and wanted not in names:
        problem = f"default_adapter {wanted} is not among the exported adapters"
        raise InputError(problem, did_you_mean(wanted, names))
    return wanted


def _check_type(project: Project, quantize: str | None) -> None:
    settings = project.export
    if settings.format == "onnx":
        if project.task == "caption":
            # GenAI's builder has image models of its own list only, adapters for none of them.
            problem = "there is no ONNX for captions: image models run on llama.cpp"
            raise UsageError(problem, "export with --format gguf")
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


def _check_limits(
    quantize: str | None, refit_rank: int | None, max_mb: float | None, min_decode_tps: float | None
) -> None:
    if refit_rank is not None and refit_rank < 1:
        raise UsageError(f"a rank of {refit_rank} is not possible", "use at least 1")
    for name, limit in (("--max-mb", max_mb), ("--min-decode-tps", min_decode_tps)):
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
