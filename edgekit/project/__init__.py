"""The project: its file, edgekit.yaml, and the folders it names."""

from edgekit.project.changes import read_settings, with_settings
from edgekit.project.combined import Combined
from edgekit.project.data_files import DataFiles
from edgekit.project.fields import TARGET_WORDS
from edgekit.project.generation import Generation
from edgekit.project.loader import load_project
from edgekit.project.model import (
    AUTO,
    DECODE_BUDGET,
    FORMATS,
    LOSSES,
    METHODS,
    MODES,
    ONNX_PRECISIONS,
    P_TUNING,
    PRECISIONS,
    PREFERENCE,
    PROJECT_FILE,
    PROJECTORS,
    PROMPT_TUNING,
    VIRTUAL,
    Adapter,
    Export,
    Gate,
    Project,
)
from edgekit.project.schedulers import SCHEDULERS
from edgekit.project.stacks import Stack

__all__ = [
    "AUTO",
    "DECODE_BUDGET",
    "FORMATS",
    "LOSSES",
    "METHODS",
    "MODES",
    "ONNX_PRECISIONS",
    "PRECISIONS",
    "PREFERENCE",
    "PROJECTORS",
    "PROJECT_FILE",
    "PROMPT_TUNING",
    "P_TUNING",
    "SCHEDULERS",
    "TARGET_WORDS",
    "VIRTUAL",
    "Adapter",
    "Combined",
    "DataFiles",
    "Export",
    "Gate",
    "Generation",
    "Project",
    "Stack",
    "load_project",
    "read_settings",
    "with_settings",
]
