"""`edgekit train`."""

from __future__ import annotations

from typing import Annotated

import typer

from edgekit.cli.completion import adapter_names
from edgekit.cli.frame import Json, command
from edgekit.cli.options import OtherBase, ProjectFolder, load
from edgekit_runtime.cli.parser import print_json
from edgekit_runtime.errors import UsageError


@command("edgekit train inspection", "edgekit train inspection --set epochs=5 --set rank=32")
def train(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="adapter (default: all of the project)", autocompletion=adapter_names),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="continue an interrupted training")] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="another setting than edgekit.yaml's: rank=8, say (can be repeated)"
        ),
    ] = None,
    base: OtherBase = None,
    folder: ProjectFolder = ".",
    as_json: Json = False,
) -> None:
    """Train an adapter, or all of the project."""
    project = load(folder, base)
    wanted = [project.adapter(name)] if name else list(project.adapters.values())
    names = [adapter.name for adapter in wanted if name or adapter.path is None]
    if not names:
        raise UsageError("every adapter of the project was trained elsewhere", "go on with `edgekit export`")
    from edgekit.project import read_settings, with_settings
    from edgekit.training.preflight import check_train

    changes = read_settings(settings or [])
    check_train(with_settings(project, names, changes), names)
    from edgekit.training.run import train

    folders = {each: train(project, each, resume=resume, settings=changes) for each in names}
    if as_json:
        print_json({"adapters": {each: str(path) for each, path in folders.items()}})
    else:
        for each, path in folders.items():
            print(f"{each}: {path}")
