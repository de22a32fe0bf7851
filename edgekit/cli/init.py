"""`edgekit init`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.completion import bases, templates
from edgekit.cli.frame import Json, command
from edgekit_runtime.cli.parser import print_json


@command("edgekit init line-3", "edgekit init line-3 --base model.gguf")
def init(
    folder: Annotated[Path, typer.Argument(parser=Path, metavar="DIR", help="folder to make")],
    template: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="inspection (default), monitoring, service-desk, finance, triage, contract, lesson, tools, chat, "
            "caption, inspection-numeric, or many (eight of these)",
            autocompletion=templates,
        ),
    ] = "inspection",
    base: Annotated[
        str | None,
        typer.Option(
            metavar="BASE",
            help="your base model: a hub id, Hugging Face folder or GGUF file (default: a demo one)",
            autocompletion=bases,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a new project with example data."""
    from edgekit.examples.init import TEMPLATES, init_project
    from edgekit.project import load_project

    file = init_project(folder, template, base=base)
    if as_json:
        print_json({"project": str(file)})
    else:
        given = load_project(file.parent).chat_template
        if given is not None:
            print(f"the base has no chat template: chat_template is set to {given}; a file of your own works too")
        for notice in (each.notice for each in TEMPLATES[template] if each.notice is not None):
            print(f"note: {notice}")
        print(f"wrote {file}\nnext: cd {shlex.quote(str(folder))} && edgekit train")
