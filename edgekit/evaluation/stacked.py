"""Stacks of a project in torch: the exact sum of their adapters' updates on one base."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from edgekit.bases.resolve import loading_name
from edgekit.bases.weights import Weights
from edgekit.encoding.images import row_images
from edgekit.evaluation.torch_model import TorchModel
from edgekit.project import Adapter, Project
from edgekit.training.finished import trained_reasoning
from edgekit.training.parts import combined_pairs, common_weights, find_parts
from edgekit_exporters.base import Base
from edgekit_exporters.bundle import StackSource
from edgekit_exporters.hf.templates import template_facts
from edgekit_exporters.peft.combinations import CAT, Combination
from edgekit_exporters.peft.intake import is_dead, take_in
from edgekit_exporters.peft.written import write_peft
from edgekit_runtime.errors import InputError
from edgekit_runtime.prompts.reasoning import template_arguments
from edgekit_runtime.prompts.template import ChatTemplate


def stack_subject(project: Project, name: str) -> Adapter:
    """A stack as an adapter that can be asked: its words and rows, and the reasoning of its parts.

    Raises:
        InputError: a part isn't trained, or its training says otherwise than the project.
    """
    modes = {trained_reasoning(project, project.adapters[part]) for part in project.stacks[name].scales}
    return replace(project.subject(name), reasoning=modes.pop() if len(modes) == 1 else None)


def stack_source(project: Project, subject: Adapter, base: Base) -> StackSource:
    """What :func:`stack_subject` gave, as exporters take it."""
    template = ChatTemplate.of(template_facts(base.folder))
    return StackSource(
        name=subject.name,
        scales=project.stacks[subject.name].scales,
        system=subject.system,
        generation=subject.generation.as_dict(),
        output_schema=subject.schema,
        template_arguments=template_arguments(template, subject.reasoning) or None,
    )


def stacked_model(project: Project, subject: Adapter, base: Base) -> tuple[TorchModel, Weights]:
    """The base with all adapters of a stack, which is ``subject``, at their scales, on the weights of their training.

    Raises:
        InputError: a part that is missing, of another base, or no sum of pairs; parts that cancel out.
    """
    scales = project.stacks[subject.name].scales
    parts = find_parts(project, scales, base)
    weights = common_weights(project, subject, parts, base)
    with tempfile.TemporaryDirectory(prefix="edgekit-stack-") as scratch:
        folder = Path(scratch)
        write_peft(combined_pairs(parts, scales, Combination(CAT)), base, loading_name(base), folder)
        if is_dead(take_in(folder, base)):
            raise InputError(f"the stack {subject.name} changes nothing: its parts cancel out", "use other scales")
        images = row_images(project, base)
        model = TorchModel(base, weights, folder, images, name=subject.name, reasoning=subject.reasoning)
    return model, weights
