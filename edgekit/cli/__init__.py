"""The command line: one module a command."""

from edgekit.cli.program import main

__all__ = ["main"]
