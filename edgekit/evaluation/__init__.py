"""Evaluation: how well base and adapter answer, in torch and on the exported files."""

from edgekit.evaluation.evaluate import Evaluation, evaluate, evaluate_base
from edgekit.evaluation.table import evaluation_table

__all__ = ["Evaluation", "evaluate", "evaluate_base", "evaluation_table"]
