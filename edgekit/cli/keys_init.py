"""`edgekit keys init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.frame import Json, command
from edgekit.cli.keys_options import FleetPath, tell
from edgekit.cli.options import read
from edgekit_runtime.cli.arguments import CA, whole

_MOST_DAYS = 10_000


def _days(role: str, default: int) -> typer.models.OptionInfo:
    help = f"days until what {role} has signed expires ({default})"
    return typer.Option(parser=read(whole(1, _MOST_DAYS)), metavar="N", help=help)  # type: ignore[no-any-return]


@command("edgekit keys init fleet --registry oci://registry.example/team/fleet")
def init(
    folder: FleetPath,
    registry: Annotated[str, typer.Option(metavar="REFERENCE", help="repository of the fleet: oci://HOST/REPOSITORY")],
    root_keys: Annotated[int, typer.Option(parser=read(whole(1, 99)), metavar="N", help="keys of the root (3)")] = 3,
    threshold: Annotated[
        int, typer.Option(parser=read(whole(1, 99)), metavar="N", help="of them have to sign a root (2)")
    ] = 2,
    root_days: Annotated[int, _days("root", 365)] = 365,
    targets_days: Annotated[int, _days("targets", 90)] = 90,
    snapshot_days: Annotated[int, _days("snapshot", 14)] = 14,
    timestamp_days: Annotated[int, _days("timestamp", 7)] = 7,
    ca: Annotated[Path | None, typer.Option(parser=Path, metavar="FILE", help=CA)] = None,
    as_json: Json = False,
) -> None:
    """Make a fleet: its keys, and its first metadata in a registry."""
    from edgekit.fleet.folder import Lifetimes
    from edgekit.fleet.operate import begin
    from edgekit_runtime.registry.reference import Reference

    done = begin(
        folder,
        Reference.parse_repository(registry),
        root_keys=root_keys,
        threshold=threshold,
        lifetimes=Lifetimes(root_days, targets_days, snapshot_days, timestamp_days),
        ca=ca,
    )
    tell(done, as_json=as_json)
