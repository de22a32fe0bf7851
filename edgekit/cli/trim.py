"""`edgekit trim`."""

from __future__ import annotations

from typing import Annotated

import typer

from edgekit.cli.completion import adapter_names
from edgekit.cli.frame import Json, command
from edgekit.cli.options import OtherBase, ProjectFolder, load
from edgekit_runtime.cli.parser import print_json


@command("edgekit trim inspection")
def trim(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="adapter (default: the only one)", autocompletion=adapter_names),
    ] = None,
    base: OtherBase = None,
    folder: ProjectFolder = ".",
    as_json: Json = False,
) -> None:
    """Leave out matrices of a trained adapter until it decodes fast enough.

    For adapters with targets: auto.  `edgekit train` does this by itself; after an interruption, do it with this.
    """
    project = load(folder, base)
    from edgekit.trimming.trim import trim

    found = trim(project, name)
    if as_json:
        print_json({"adapter": found.adapter, "folder": str(found.folder), **found.as_dict()})
    else:
        print(f"{found.adapter}: {found.folder}")
        print(f"  {found.text()}")
