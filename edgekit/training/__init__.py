"""Training: rows and a base to a PEFT folder."""

from edgekit.training.run import adapter_folder, base_precision, train

__all__ = ["adapter_folder", "base_precision", "train"]
