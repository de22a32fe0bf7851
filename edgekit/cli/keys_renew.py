"""`edgekit keys renew`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.frame import Json, command
from edgekit.cli.keys_options import FleetPath, KeyFolders, tell
from edgekit_runtime.cli.arguments import CA


@command("edgekit keys renew fleet")
def renew(
    folder: FleetPath,
    keys: KeyFolders = None,
    restore: Annotated[
        bool, typer.Option("--restore", help="publish the folder's files again where the registry has older ones")
    ] = False,
    ca: Annotated[Path | None, typer.Option(parser=Path, metavar="FILE", help=CA)] = None,
    as_json: Json = False,
) -> None:
    """Sign a fleet's metadata anew before it expires; needs the keys of timestamp and snapshot, for cron."""
    from edgekit.fleet.operate import Session, renew

    tell(renew(Session(folder, keys or [], ca=ca), restore=restore), as_json=as_json)
