"""Training: rows and a base to a PEFT folder."""

from edgekit.folders import adapter_folder
from edgekit.training.run import train

__all__ = ["adapter_folder", "train"]
