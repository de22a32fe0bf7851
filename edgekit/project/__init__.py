"""The project: its file, edgekit.yaml, and the folders it names."""

from edgekit.project.changes import read_settings, with_settings
from edgekit.project.data_files import DataFiles
from edgekit.project.fields import TARGET_WORDS
from edgekit.project.loader import load_project
from edgekit.project.model import (
    AUTO,
    FORMATS,
    LOSSES,
    METHODS,
    MODES,
    ONNX_PRECISIONS,
    PRECISIONS,
    PREFERENCE,
    PROJECT_FILE,
    PROJECTORS,
    SCHEDULERS,
    Adapter,
    Export,
    Gate,
    Generation,
    Project,
)

__all__ = [
    "AUTO",
    "FORMATS",
    "LOSSES",
    "METHODS",
    "MODES",
    "ONNX_PRECISIONS",
    "PRECISIONS",
    "PREFERENCE",
    "PROJECTORS",
    "PROJECT_FILE",
    "SCHEDULERS",
    "TARGET_WORDS",
    "Adapter",
    "DataFiles",
    "Export",
    "Gate",
    "Generation",
    "Project",
    "load_project",
    "read_settings",
    "with_settings",
]
