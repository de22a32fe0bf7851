"""llguidance, where it is installed: devices without a wheel of it answer everything but structured output."""

from __future__ import annotations

from types import ModuleType

from edgekit_runtime.errors import InputError


def llguidance() -> ModuleType:
    """The module.

    Raises:
        InputError: it is not installed.
    """
    try:
        import llguidance as module
    except ImportError:
        raise InputError(
            "a schema, regex, grammar or choice needs llguidance, which is not installed here",
            "pip install llguidance, or ask without one",
        ) from None
    return module
