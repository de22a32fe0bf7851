"""The command line of a device; importing it is cheap."""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``edgekit-runtime`` with ``argv`` (the process's own when None); returns the exit code."""
    from edgekit_runtime.cli.program import main as run

    return run(argv)
