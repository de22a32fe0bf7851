"""What a model is, for clients that ask: in the worker, which has its files open."""

from __future__ import annotations

from typing import Any

from edgekit_runtime.formats.manifest import BASE
from edgekit_runtime.prompts.reasoning import knows_reasoning
from edgekit_runtime.prompts.rendering import chat_template
from edgekit_runtime.runtime import Runtime

LONGEST = 1024  # signs of a text that is told


def about(runtime: Runtime, model: str) -> dict[str, Any]:
    """The base, or an adapter or stack over it.

    Returns:
        ``system``, ``generation`` and ``schema`` as in the manifest, ``template`` (the base's chat template),
        ``reasons`` (whether that knows reasoning), ``images`` (whether the base reads some), and ``metadata``: what the
        base's file says of itself in single values.

    Raises:
        InputError: there is no such model.
    """
    manifest, header = runtime.manifest, runtime.header
    entry = manifest.base if model == BASE else manifest.subject(model)
    template = chat_template(header)
    return {
        "system": entry.system,
        "generation": entry.generation,
        "schema": entry.schema,
        "template": template.source,
        "images": manifest.task == "caption",
        "reasons": knows_reasoning(template),
        "metadata": {key: value for key, value in header.metadata.items() if _is_short(value)},
    }


def _is_short(value: Any) -> bool:
    return isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= LONGEST)
