"""Evaluation: how well base and adapter answer, in torch and on the exported files."""

from edgekit.evaluation.evaluate import Evaluation, evaluate

__all__ = ["Evaluation", "evaluate"]
