"""`edgekit runs`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.completion import run_names
from edgekit.cli.frame import Json, command
from edgekit.cli.options import ProjectFolder, load
from edgekit_runtime.cli.parser import print_json
from edgekit_runtime.errors import InputError


@command(
    "edgekit runs",
    "edgekit runs inspection-20270102-101500-3fa2 last",
    "edgekit runs --plot losses.svg",
)
def runs(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN",
            help="runs to compare, or one to show; `last` is the newest (default: list all)",
            autocompletion=run_names,
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(parser=Path, metavar="FILE", help="draw their losses into an .svg, .png or .pdf"),
    ] = None,
    folder: ProjectFolder = ".",
    as_json: Json = False,
) -> None:
    """List, compare and plot the trainings of a project."""
    from edgekit.training.comparing import check_picture, comparison, comparison_table, plot_runs, runs_table
    from edgekit.training.history import find_runs, read_runs

    if plot is not None:
        check_picture(plot)
    project = load(folder)
    chosen = find_runs(project, names) if names else read_runs(project)
    if plot is not None and not chosen:
        raise InputError(_NONE, "there is nothing to draw")
    if not names:
        print_json({"runs": chosen}) if as_json else print(runs_table(chosen) if chosen else _NONE)
    elif as_json:
        print_json(comparison(chosen) if len(chosen) > 1 else chosen[0])
    else:
        print(comparison_table(chosen) if len(chosen) > 1 else _shown(chosen[0]))
    if plot is not None:
        plot_runs(chosen, plot)


_NONE = "the project has no runs yet; `edgekit train` records one"


def _shown(run: dict[str, object]) -> str:
    """All that is known of a run but its curve, which a picture shows better."""
    from edgekit_runtime.files.strict_json import strict_json

    return strict_json({key: value for key, value in run.items() if key != "losses"}, indent=2)
