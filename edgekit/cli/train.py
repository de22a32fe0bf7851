"""`edgekit train`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit.cli.completion import adapter_names
from edgekit.cli.frame import Json, command
from edgekit.cli.options import OtherBase, ProjectFolder, load
from edgekit_runtime.cli.parser import print_json
from edgekit_runtime.errors import UsageError

if TYPE_CHECKING:
    from edgekit.project import Project


@command(
    "edgekit train inspection",
    "edgekit train inspection --set epochs=5 --set rank=32",
    "edgekit train --dry-run",
)
def train(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="adapter (default: all of the project)", autocompletion=adapter_names),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="another setting than edgekit.yaml's: rank=8, say (can be repeated)"
        ),
    ] = None,
    merged: Annotated[
        bool, typer.Option("--merged", help="train what `export --mode merged` ships (as --set merged=true)")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="continue an interrupted training")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="only say what it takes: steps, tokens, memory, time")
    ] = False,
    base: OtherBase = None,
    folder: ProjectFolder = ".",
    as_json: Json = False,
) -> None:
    """Train an adapter, or all of the project."""
    project = load(folder, base)
    wanted = [project.adapter(name)] if name else list(project.adapters.values())
    made = [adapter.name for adapter in wanted if adapter.combined is not None and not name]
    names = [adapter.name for adapter in wanted if name or (adapter.path is None and adapter.combined is None)]
    if not names and made:
        raise UsageError("no adapter of the project is trained here", f"go on with `edgekit combine {made[0]}`")
    if not names:
        raise UsageError("every adapter of the project was trained elsewhere", "go on with `edgekit export`")
    if dry_run and resume:
        raise UsageError("--dry-run goes with no --resume", "leave one out")
    from edgekit.project import read_settings, with_settings
    from edgekit.training.preflight import check_train

    changes = read_settings(settings or [])
    if merged:
        if changes.get("merged") is False:
            raise UsageError("--merged is given beside --set merged=false", "leave one out")
        changes["merged"] = True
    check_train(with_settings(project, names, changes), names)
    if dry_run:
        _dry_run(project, names, changes, as_json=as_json)
        return
    from edgekit.training.run import train

    if resume:
        from edgekit.training.checkpoints import left_to_train

        parts = left_to_train(project, names)
    else:
        parts = dict.fromkeys(names, False)
    folders = {each: train(project, each, resume=goes_on, settings=changes) for each, goes_on in parts.items()}
    trimmed = _trimmed(with_settings(project, names, changes), folders, changes)
    if as_json:
        print_json({"adapters": {each: str(path) for each, path in folders.items()}})
        return
    for each, path in folders.items():
        print(f"{each}: {path}")
        print(f"  {_outcome(path)}")
        if each in trimmed:
            print(f"  {trimmed[each]}")
    mode = " --mode merged" if project.adapter(next(iter(folders))).merged or merged else ""
    then = f"edgekit combine {' '.join(made)}" if made else f"edgekit export{mode}"
    print(f"  next: edgekit evaluate {next(iter(folders))}, then {then}")


def _trimmed(project: Project, folders: Mapping[str, Path], changes: Mapping[str, Any]) -> dict[str, str]:
    """Those with targets: auto are trimmed now; what came of it, by adapter."""
    from edgekit.project import AUTO

    wanted = [name for name in folders if project.adapter(name).targets == AUTO]
    if not wanted:
        return {}
    from edgekit.trimming.trim import trim

    return {name: trim(project, name, settings=changes).text() for name in wanted}


def _dry_run(project: Project, names: Sequence[str], changes: Mapping[str, Any], *, as_json: bool) -> None:
    from edgekit.training.dry_run import dry_run

    found = [dry_run(project, each, settings=changes) for each in names]
    if as_json:
        print_json({"adapters": {each.adapter: each.as_dict() for each in found}})
    else:
        print("\n".join(each.text() for each in found))


def _outcome(folder: Path) -> str:
    """Last losses, steps and time of a training that has just ended."""
    from edgekit.project.run_record import read_record
    from edgekit.training.record import final_losses
    from edgekit_exporters.progress import clock

    record = read_record(folder)
    assert record is not None  # training has written it
    last = final_losses(record["losses"], record["kept_step"])
    named = (("loss", "in training"), ("eval_loss", "in evaluation"))
    losses = ", ".join(f"{last[key]:.3f} {where}" for key, where in named if key in last)
    kept = f", kept from step {record['kept_step']}" if record["kept_step"] else ""
    steps = int(max(entry["step"] for entry in record["losses"]))
    return f"loss {losses}{kept}; {record['status']} after {steps} steps in {clock(record['seconds'])}"
