"""`edgekit keys rotate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.frame import Json, command
from edgekit.cli.keys_options import FleetPath, KeyFolders, tell
from edgekit.cli.options import one_of
from edgekit_runtime.cli.arguments import CA


def _roles() -> list[str]:
    return ["root", "targets", "snapshot", "timestamp"]


@command("edgekit keys rotate fleet timestamp", "edgekit keys rotate fleet root --key root-2 --keys /media/stick")
def rotate(
    folder: FleetPath,
    role: Annotated[str, typer.Argument(metavar="ROLE", help=", ".join(_roles()), **one_of("role", _roles))],
    key: Annotated[
        str | None, typer.Option("--key", metavar="NAME", help="replace this key of the role alone: root-2")
    ] = None,
    keys: KeyFolders = None,
    ca: Annotated[Path | None, typer.Option(parser=Path, metavar="FILE", help=CA)] = None,
    as_json: Json = False,
) -> None:
    """Give a role of a fleet new keys; devices take them over by themselves."""
    from edgekit.fleet.operate import Session, rotate

    tell(rotate(Session(folder, keys or [], ca=ca), role, key), as_json=as_json)
