"""`edgekit schema`."""

from __future__ import annotations

from edgekit.cli.frame import Json, command
from edgekit_runtime.cli.parser import print_json


@command("edgekit schema > edgekit.schema.json")
def schema(as_json: Json = False) -> None:
    """Print the JSON Schema of edgekit.yaml, for editors."""
    from edgekit.project.schema import project_schema

    print_json(project_schema())
