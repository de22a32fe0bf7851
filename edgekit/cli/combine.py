"""`edgekit combine`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from edgekit.cli import completion
from edgekit.cli.frame import Json, command
from edgekit.cli.options import OtherBase, ProjectFolder, load, one_of, read
from edgekit_runtime.cli.arguments import number, whole
from edgekit_runtime.cli.parser import print_json
from edgekit_runtime.errors import UsageError


@command(
    "edgekit combine both --from triage=1,summary=1",
    "edgekit combine both --from triage=0.7,summary=0.3 --method svd --rank 16",
    "edgekit combine both --from triage,summary --method learned",
    "edgekit combine both --search --trials 16",
)
def combine(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="combined adapters (default: all of the project)",
            autocompletion=completion.adapter_names,
        ),
    ] = None,
    parts: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="A=W,B=W", help="adapters or paths, each with its weight; it goes to edgekit.yaml"
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD",
            help="with --from: cat (default: the exact sum), learned, svd, linear, ties, dare_linear, della, …",
            **one_of("--method", completion.combinations),
        ),
    ] = None,
    rank: Annotated[
        int | None,
        typer.Option(parser=read(whole()), metavar="N", help="with --from: rank of svd, della and the methods in _svd"),
    ] = None,
    density: Annotated[
        float | None,
        typer.Option(
            parser=read(number(above=0)), metavar="D", help="with --from: share of numbers that pruning methods keep"
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(parser=read(whole()), metavar="N", help="with --method learned: most steps of training (60)"),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(parser=read(whole(0)), metavar="N", help="with --from: seed of what a method draws")
    ] = None,
    search: Annotated[
        bool, typer.Option("--search", help="search weights and density on every second evaluation row of the parts")
    ] = False,
    trials: Annotated[
        int, typer.Option(parser=read(whole()), metavar="N", help="with --search: combinations to try (12)")
    ] = 12,
    resume: Annotated[
        bool, typer.Option("--resume", help="with --search: go on with the search in the project")
    ] = False,
    accept_loss: Annotated[
        str | None,
        typer.Option(metavar="REASON", help="keep it although the gate refuses; the reason goes into run.json"),
    ] = None,
    base: OtherBase = None,
    folder: ProjectFolder = ".",
    as_json: Json = False,
) -> None:
    """Make one adapter of several, and measure it on the rows of each."""
    project = load(folder, base)
    settings = {"method": method, "rank": rank, "density": density, "steps": steps}
    if parts is None:
        if seed is not None or any(value is not None for value in settings.values()):
            raise UsageError("--method, --rank, --density, --steps and --seed go with --from", "or change edgekit.yaml")
        chosen = names or [each.name for each in project.adapters.values() if each.combined is not None]
        if not chosen:
            raise UsageError("no adapter of the project is made of others", "give NAME and --from a=0.7,b=0.3")
    else:
        chosen = names or []
        if len(chosen) != 1:
            raise UsageError("--from is for one adapter", "give its name: edgekit combine NAME --from a=0.7,b=0.3")
        from edgekit.combining.given import read_parts, with_combined

        project = with_combined(project, chosen[0], {"parts": read_parts(parts)} | settings, seed)
    if resume and not search:
        raise UsageError("--resume is for --search", "add --search, or leave it out")
    from edgekit.combining.preflight import check_combine

    for name in chosen:
        check_combine(project, name, accept_loss=accept_loss, search=search)
    from edgekit.combining.given import write_combined
    from edgekit.combining.make import make_combined
    from edgekit.combining.search import search_weights

    documents = {}
    for name in chosen:
        if search:
            project = search_weights(project, name, trials=trials, resume=resume)
        made = make_combined(project, name, accept_loss=accept_loss)
        if search or parts is not None:
            write_combined(project, name)
        documents[name] = {"folder": str(made.folder)} | made.combined
        if not as_json:
            print(f"{name}: {made.folder}")
            print("\n".join(_lines(made.combined)))
    if as_json:
        print_json({"adapters": documents})
    else:
        print(f"next: edgekit evaluate {chosen[0]}, then edgekit export")


def _lines(combined: Mapping[str, Any]) -> list[str]:
    """What it is made of, and what that does to each part's score."""
    from edgekit_runtime.bench.report import aligned

    rows = [["part", "weight", "rows", "alone", "combined", "loss"]]
    for part in combined["parts"]:
        measured = "loss" in part
        figures = [f"{part[key]:.1f}" for key in ("before", "after", "loss")] if measured else ["", "", ""]
        rows.append([part["name"], f"{part['weight']:g}", str(part["rows"]) if measured else "0", *figures])
    lines = aligned(rows)
    if "learned" in combined:
        found = combined["learned"]
        lines.append(
            f"weights are means over layers; loss {found['loss_before']:.4f} before and {found['loss']:.4f} after "
            f"{found['kept_step']} of {found['steps']} steps"
        )
    return [f"  {line}" for line in lines]
