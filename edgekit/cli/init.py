"""`edgekit init`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.completion import templates
from edgekit.cli.frame import Json, command
from edgekit_runtime.cli.parser import print_json


@command("edgekit init line-3")
def init(
    folder: Annotated[Path, typer.Argument(parser=Path, metavar="DIR", help="folder to make")],
    template: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="inspection (default), monitoring, chat or caption", autocompletion=templates
        ),
    ] = "inspection",
    as_json: Json = False,
) -> None:
    """Write a new project with example data."""
    from edgekit.examples.init import init_project

    file = init_project(folder, template)
    if as_json:
        print_json({"project": str(file)})
    else:
        print(f"wrote {file}\nnext: cd {shlex.quote(str(folder))} && edgekit train")
