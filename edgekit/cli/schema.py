"""`edgekit schema`."""

from __future__ import annotations

import argparse

from edgekit_runtime.cli.parser import Program, print_json


def add_schema(program: Program) -> None:
    """Add the command."""
    program.command(
        "schema",
        "print the JSON Schema of edgekit.yaml, for editors",
        "edgekit schema > edgekit.schema.json",
        _schema,
    )


def _schema(arguments: argparse.Namespace) -> None:
    from edgekit.project.schema import project_schema

    print_json(project_schema())
