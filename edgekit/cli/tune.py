"""`edgekit tune`."""

from __future__ import annotations

import argparse
import re
from typing import Annotated

import typer

from edgekit.cli.completion import adapter_names
from edgekit.cli.frame import Json, command
from edgekit.cli.options import OtherBase, ProjectFolder, load, read
from edgekit_runtime.cli.arguments import whole
from edgekit_runtime.cli.parser import print_json
from edgekit_runtime.errors import UsageError

_UNITS = {"s": 1, "m": 60, "h": 3600}


def _duration(text: str) -> float:
    """Seconds of 90s, 30m or 2h."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if found is None or float(found[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no time, use 90s, 30m or 2h")
    return float(found[1]) * _UNITS[found[2]]


@command("edgekit tune inspection --trials 12", "edgekit tune inspection --time 2h --resume")
def tune(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="adapter (default: the only one)", autocompletion=adapter_names),
    ] = None,
    trials: Annotated[int, typer.Option(parser=read(whole()), metavar="N", help="trainings to try (12)")] = 12,
    time: Annotated[
        float | None, typer.Option(parser=read(_duration), metavar="TIME", help="begin no trial after 90s, 30m, 2h ...")
    ] = None,
    searched: Annotated[
        str | None,
        typer.Option(
            "--search", metavar="KEYS", help="learning_rate,rank,targets,alpha,dropout (default: these), epochs"
        ),
    ] = None,
    weigh_size: Annotated[
        bool, typer.Option("--weigh-size", help="search for the smallest adapter within a point of the best score")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on with the search in the project; several processes can")
    ] = False,
    no_write: Annotated[
        bool, typer.Option("--no-write", help="leave edgekit.yaml and the trained adapter as they are")
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(parser=read(whole()), metavar="N", help="score the best trials on the first N evaluation rows"),
    ] = None,
    base: OtherBase = None,
    folder: ProjectFolder = ".",
    as_json: Json = False,
) -> None:
    """Search better settings for an adapter: the learning rate first, then the others.

    Each trial is a training; those that fall behind end early.  The best trials answer the evaluation rows on the
    device's engine.  What wins goes to edgekit.yaml, and its adapter to adapters/NAME.
    """
    project = load(folder, base)
    adapter = project.adapter(name)
    if adapter.path is not None:
        raise UsageError(f"adapter {adapter.name} was trained elsewhere", "name one that edgekit trains")
    if adapter.combined is not None:
        raise UsageError(f"adapter {adapter.name} is made of others", f"run `edgekit combine {adapter.name} --search`")
    from edgekit.training.preflight import check_train

    check_train(project, [adapter.name])
    from edgekit.tuning.apply import apply
    from edgekit.tuning.report import PLOT_FILE, as_document, save, table
    from edgekit.tuning.search import search
    from edgekit.tuning.space import space_of
    from edgekit.tuning.study import study_folder

    keys = None if searched is None else [key.strip() for key in searched.split(",")]
    space = space_of(adapter, keys)
    found = search(project, space, trials=trials, seconds=time, resume=resume, weighs_size=weigh_size, rows=limit)
    where = study_folder(project, adapter.name)
    save(found, where, adapter.highest_rate)
    changed = not no_write and apply(project, adapter.name, found)
    if as_json:
        print_json(as_document(found))
        return
    print(table(found, list(space.searched)))
    print(f"all trials: {where / PLOT_FILE}")
    if no_write:
        chosen = " ".join(f"--set {key}={value}" for key, value in found.best.settings.items())
        print(f"train the best: edgekit train {adapter.name} {chosen}".rstrip())
    elif changed:
        print(f"edgekit.yaml has these settings now, adapters/{adapter.name} is the best trial; next: edgekit export")
    else:
        print(f"your own settings were the best; adapters/{adapter.name} is trained with them; next: edgekit export")
