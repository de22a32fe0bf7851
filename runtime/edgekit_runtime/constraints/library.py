"""llguidance, where it is installed: devices without a wheel of it answer everything but structured output."""

from __future__ import annotations

from types import ModuleType

from edgekit_runtime.errors import InputError

# What the dynamic loader says of a library that it has no room for.
NO_MEMORY = (
    "failed to map segment",
    "cannot allocate memory",
    "Cannot allocate memory",
    "cannot apply additional memory",
)


def llguidance() -> ModuleType:
    """The module.

    Raises:
        InputError: it is not installed, or can't be loaded.
        MemoryError: too little memory is left to load it.
    """
    try:
        import llguidance as module
    except ImportError as error:
        if any(reason in str(error) for reason in NO_MEMORY):
            raise MemoryError(str(error)) from error
        if not isinstance(error, ModuleNotFoundError):
            raise InputError(
                f"a schema, regex, grammar or choice needs llguidance, which can't be loaded here ({error})",
                "install a wheel of it for this machine, or ask without one",
            ) from None
        raise InputError(
            "a schema, regex, grammar or choice needs llguidance, which is not installed here",
            "pip install llguidance, or ask without one",
        ) from None
    return module
