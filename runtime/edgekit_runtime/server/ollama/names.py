"""Names of models as Ollama's clients spell them."""

from __future__ import annotations

from typing import Any

from edgekit_runtime.errors import InputError

TAG = ":latest"  # what its clients put behind a name that has no tag


def tagged(name: str) -> str:
    """A name as it stands in lists."""
    return f"{name}{TAG}"


def named(document: dict[str, Any], *fields: str) -> tuple[str, str]:
    """The model that a body asks for.

    Args:
        document: the body.
        fields: where its name may stand; the first one that has it counts.

    Returns:
        The name as it was sent, and that of the adapter, or "base".

    Raises:
        InputError: it is missing, or no text.
    """
    given = next((value for field in fields if (value := document.get(field))), None)
    if not isinstance(given, str):
        raise InputError("model is missing", "name an adapter, or base; GET /api/tags lists them")
    return given, given.removesuffix(TAG)
