"""Names that a shell may complete; each function imports what it needs, and says nothing where it can't tell."""

from __future__ import annotations

from edgekit_runtime.errors import EdgekitError


def adapter_names() -> list[str]:
    """The adapters of the project in this folder."""
    from edgekit.project import load_project

    try:
        return list(load_project(".").adapters)
    except (EdgekitError, OSError):
        return []


def subject_names() -> list[str]:
    """The adapters and stacks of the project in this folder."""
    from edgekit.project import load_project

    try:
        project = load_project(".")
        return [*project.adapters, *project.stacks]
    except (EdgekitError, OSError):
        return []


def bases() -> list[str]:
    """Bases that have a short name."""
    from edgekit.bases.demo_vlm.build import NAME
    from edgekit.bases.resolve import PACKAGED

    return [*PACKAGED, NAME]


def bench_targets() -> list[str]:
    """Kinds of targets."""
    from edgekit.bench.targets import TARGETS

    return list(TARGETS)


def device_names() -> list[str]:
    """The device profiles that edgekit ships."""
    from edgekit_devices import profile_names

    return list(profile_names())


def formats() -> list[str]:
    """What an engine reads."""
    from edgekit.project import FORMATS

    return list(FORMATS)


def kv_caches() -> list[str]:
    """Types of a KV cache."""
    from edgekit_runtime.formats.manifest import KV_CACHES

    return list(KV_CACHES)


def modes() -> list[str]:
    """How adapters travel."""
    from edgekit.project import MODES

    return list(MODES)


def quantizations() -> list[str]:
    """Types of weights, for both engines."""
    from edgekit.project import AUTO
    from edgekit_exporters.gguf.quantize import QUANTIZATIONS
    from edgekit_exporters.onnx.base import PRECISIONS

    return [AUTO, *QUANTIZATIONS, *PRECISIONS]


def run_names() -> list[str]:
    """The runs of the project in this folder."""
    from edgekit.project import load_project
    from edgekit.training.history import read_runs

    try:
        return [record["run"] for record in read_runs(load_project("."))]
    except (EdgekitError, OSError):
        return []


def templates() -> list[str]:
    """What `edgekit init` can write."""
    from edgekit.examples.init import TEMPLATES

    return list(TEMPLATES)


def combinations() -> list[str]:
    """Methods that make one adapter of several."""
    from edgekit_exporters.peft.combinations import COMBINATIONS

    return list(COMBINATIONS)
