"""What is wrong with a prompt adapter as a part of something."""

from __future__ import annotations

from edgekit_runtime.errors import InputError


def no_update(name: str) -> InputError:
    """What is wrong with a prompt adapter as a part."""
    return InputError(
        f"{name} is a prompt adapter: it has virtual tokens and no update to combine", "combine LoRA adapters"
    )
