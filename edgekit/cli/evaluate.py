"""`edgekit evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.completion import subject_names
from edgekit.cli.frame import Json, command
from edgekit.cli.options import OtherBase, ProjectFolder, load, read
from edgekit_runtime.cli.arguments import whole
from edgekit_runtime.cli.parser import print_json


@command("edgekit evaluate inspection --artifact dist/line-3")
def evaluate(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="adapter or stack (default: the only adapter)", autocompletion=subject_names
        ),
    ] = None,
    artifact: Annotated[
        Path | None,
        typer.Option(
            parser=Path,
            metavar="BUNDLE",
            help="answer with a bundle on the device runtime, or with a GGUF base and this adapter or stack",
        ),
    ] = None,
    base: OtherBase = None,
    limit: Annotated[
        int | None, typer.Option(parser=read(whole()), metavar="N", help="use only the first N rows")
    ] = None,
    no_base: Annotated[bool, typer.Option("--no-base", help="don't score the base model alone")] = False,
    output: Annotated[
        Path | None,
        typer.Option(parser=Path, metavar="FILE", help="also write the JSON document, with all answers"),
    ] = None,
    folder: ProjectFolder = ".",
    as_json: Json = False,
) -> None:
    """Score an adapter or a stack, and its base, on the evaluation rows."""
    project = load(folder, base)
    from edgekit.evaluation.preflight import check_evaluate

    check_evaluate(project, name, artifact=artifact, output=output)
    from edgekit.evaluation.evaluate import evaluate
    from edgekit.evaluation.table import evaluation_table

    evaluation = evaluate(project, name, artifact=artifact, limit=limit, with_base=not no_base)
    print_json(evaluation.as_dict()) if as_json else print(evaluation_table([evaluation]))
    if output is not None:  # after what was measured is on the screen: writing may fail
        evaluation.save(output)
