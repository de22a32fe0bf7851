"""`edgekit demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.frame import Json, command
from edgekit_runtime.cli.parser import print_json


@command("edgekit demo")
def demo(
    folder: Annotated[Path, typer.Argument(parser=Path, metavar="DIR", help="where (default: demo)")] = Path("demo"),
    as_json: Json = False,
) -> None:
    """Run the whole path on a real model, in a few minutes."""
    from edgekit.project import PROJECT_FILE
    from edgekit_runtime.files.atomic import check_replaceable

    if not (folder / PROJECT_FILE).exists():
        check_replaceable(folder, lambda _: False)
    from edgekit.examples.demo import run_demo

    document = run_demo(folder, quiet=as_json)
    if as_json:
        print_json(document)
