"""`edgekit merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.completion import adapter_names
from edgekit.cli.frame import Json, command
from edgekit.cli.options import ProjectFolder, load
from edgekit_runtime.cli.parser import print_json


@command("edgekit merge inspection")
def merge(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME", help="adapters, in this order (default: the only one)", autocompletion=adapter_names
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option(parser=Path, metavar="DIR", help="folder to write")] = None,
    folder: ProjectFolder = ".",
    as_json: Json = False,
) -> None:
    """Merge adapters into the float base model, as a Hugging Face folder."""
    project = load(folder)
    from edgekit.exporting.preflight import check_merge

    check_merge(project, names or [], output=output)
    from edgekit.exporting.merge import merge

    merged = merge(project, names, output=output)
    print_json({"folder": str(merged)}) if as_json else print(merged)
