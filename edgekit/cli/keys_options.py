"""What the commands of a fleet's keys have in common."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekit_runtime.cli.parser import print_json

if TYPE_CHECKING:
    from edgekit.fleet.operate import Done

FleetPath = Annotated[Path, typer.Argument(parser=Path, metavar="FOLDER", help="folder of the fleet")]
KeyFolders = Annotated[
    list[Path] | None,
    typer.Option("--keys", parser=Path, metavar="DIR", help="folder of more key files: a stick (can be repeated)"),
]


def tell(done: Done, *, as_json: bool) -> None:
    """Print what was published; a warning for each role that can't be renewed here."""
    for role, missing in done.lacking.items():
        print(
            f"warning: {role}.json expires on {done.expires[role]:%Y-%m-%d}, and keys of {role} are missing: "
            f"{', '.join(missing)}; renew with them: --keys DIR",
            file=sys.stderr,
        )
    if as_json:
        expires = {role: end.isoformat() for role, end in done.expires.items()}
        print_json({"root": str(done.root), "expires": expires, "missing_keys": done.lacking})
        return
    print(f"for devices: {done.root}")
    for role, end in done.expires.items():
        print(f"{role:10} expires on {end:%Y-%m-%d %H:%M} UTC")
