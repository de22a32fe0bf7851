"""What a training was asked for, checked in a moment: before torch is imported, a base fetched or a model loaded."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from edgekit.bases.resolve import check_project_base, gguf_file
from edgekit.bases.weights import GGUF, training_weights
from edgekit.data import load_rows
from edgekit.project import AUTO, PREFERENCE, VIRTUAL, Adapter, Project
from edgekit.project.folders import adapter_folder, is_adapter_folder
from edgekit.targets.devices import BROWSER_ENGINE, device_profile
from edgekit.training.trackers import check_trackers
from edgekit_runtime.errors import UsageError
from edgekit_runtime.files.atomic import check_replaceable


def check_train(project: Project, names: Sequence[str]) -> None:
    """Look at all that training ``names`` needs.

    Raises:
        UsageError: an adapter that was trained elsewhere, a tracker that is not installed, or a merged adapter without
            blocks to fold it into.
        InputError: no such adapter or base, bad rows, or an adapter folder that can't be replaced.
    """
    for name in names:
        adapter = project.adapter(name)
        if adapter.path is not None:
            raise UsageError(
                f"adapter {adapter.name} was trained elsewhere ({adapter.path})", "it is exported as it is"
            )
        if adapter.combined is not None:
            raise UsageError(f"adapter {adapter.name} is made of others", f"run `edgekit combine {adapter.name}`")
        check_trackers(adapter)
        _check_preferences(project, adapter)
        check_virtual(project, adapter)
        check_auto(project, adapter)
        _check_merged(project, adapter)
        files = project.data_for(name)
        load_rows(files.train)
        load_rows(files.eval)
        check_replaceable(adapter_folder(project, adapter), is_adapter_folder)
    check_project_base(project)


def check_virtual(project: Project, adapter: Adapter) -> None:
    """Refuse virtual tokens where nothing that the project names can use them.

    Raises:
        UsageError: it exports for an engine without embedding input, or merged, or for captions.
    """
    if adapter.method not in VIRTUAL:
        return
    export, method = project.export, f"adapter {adapter.name} has method: {adapter.method}"
    browser = export.device is not None and device_profile(export.device).engine == BROWSER_ENGINE
    for refused, reason, hint in (
        (
            project.task == "caption",
            "PEFT puts images in the places that virtual tokens shift",
            "train captions with another method",
        ),
        (
            export.mode == "merged",
            "virtual tokens stand before the prompt, they change no weight to merge into",
            "set export.mode: separate, or train a LoRA",
        ),
        (
            export.format == "onnx",
            "an ONNX base takes token ids alone, its graph holds the embeddings",
            "set export.format: gguf, or train a LoRA",
        ),
        (
            browser,
            f"the engine of a page ({export.device}) takes no embeddings",
            "choose another export.device, or train a LoRA",
        ),
    ):
        if refused:
            raise UsageError(f"{method}, and {reason}", hint)


def check_auto(project: Project, adapter: Adapter) -> None:
    """Refuse `targets: auto` where it isn't known what a matrix costs, or none costs anything.

    Raises:
        UsageError: the project exports merged or for another engine than llama.cpp, or reads images.
    """
    if adapter.targets != AUTO:
        return
    export = project.export
    browser = export.device is not None and device_profile(export.device).engine == BROWSER_ENGINE
    for refused, reason, hint in (
        (project.task == "caption", "is for task: text", "name the targets"),
        (
            export.mode == "merged" or adapter.merged,
            "leaves nothing out of a merged adapter, which costs nothing",
            "use all-linear",
        ),
        (
            export.format == "onnx" or browser,
            "is for llama.cpp on a CPU: other engines' costs aren't known",
            "name them",
        ),
    ):
        if refused:
            raise UsageError(f"adapter {adapter.name}: targets: {AUTO} {reason}", hint)


def _check_merged(project: Project, adapter: Adapter) -> None:
    """Refuse to fold an adapter into blocks where nobody says which ones devices run, or these are no GGUF blocks."""
    if not adapter.merged:
        return
    said, export = f"adapter {adapter.name} has merged: true", project.export
    if export.format == "onnx":
        raise UsageError(
            f"{said}, which folds it into GGUF blocks, and export.format is onnx",
            "set export.format: gguf, or train without merged",
        )
    weights = training_weights(adapter, export, gguf_file(project.base, relative_to=project.folder))
    if weights.format != GGUF:
        auto = "is auto" if export.quantize == AUTO else "says no type"
        problem = f"{said}, which needs to know what devices run, and export.quantize {auto}"
        raise UsageError(problem, "set export.quantize: Q4_0, say")


def _check_preferences(project: Project, adapter: Adapter) -> None:
    if adapter.method != PREFERENCE:
        return
    if project.task != "text":
        raise UsageError(f"method: {PREFERENCE} is for task: text", "train captions with another method")
    if importlib.util.find_spec("trl") is None:
        hint = "pip install 'edgekit[preference]'"
        raise UsageError(f"method: {PREFERENCE} needs the package trl, which is not installed", hint)
