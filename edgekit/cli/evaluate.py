"""`edgekit evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekit.cli.completion import subject_names
from edgekit.cli.frame import Json, command
from edgekit.cli.options import OtherBase, ProjectFolder, load, read
from edgekit_runtime.cli.arguments import whole
from edgekit_runtime.cli.parser import print_json
from edgekit_runtime.errors import UsageError
from edgekit_runtime.formats.manifest import AUTO

if TYPE_CHECKING:
    from edgekit.project import Project


@command("edgekit evaluate inspection --artifact dist/line-3", "edgekit evaluate auto --artifact dist/line-3")
def evaluate(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="adapter or stack (default: the only adapter), or auto: what its choices cost",
            autocompletion=subject_names,
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
    if name == AUTO:
        if no_base:
            raise UsageError(f"--no-base goes with no {AUTO}", "leave it out")
        _through_auto(project, artifact, limit, output, as_json=as_json)
        return
    from edgekit.evaluation.preflight import check_evaluate

    check_evaluate(project, name, artifact=artifact, output=output)
    from edgekit.evaluation.evaluate import evaluate
    from edgekit.evaluation.table import evaluation_table

    evaluation = evaluate(project, name, artifact=artifact, limit=limit, with_base=not no_base)
    print_json(evaluation.as_dict()) if as_json else print(evaluation_table([evaluation]))
    if output is not None:  # after what was measured is on the screen: writing may fail
        evaluation.save(output)


def _through_auto(
    project: Project, artifact: Path | None, limit: int | None, output: Path | None, *, as_json: bool
) -> None:
    from edgekit.evaluation.preflight import check_through_auto

    check_through_auto(project, artifact=artifact, output=output)
    assert artifact is not None  # checked above
    from edgekit.evaluation.through_auto import evaluate_through_auto

    found = evaluate_through_auto(project, artifact, limit=limit)
    print_json(found.as_dict()) if as_json else print(found.text())
    if output is not None:
        found.save(output)
