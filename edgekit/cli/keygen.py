"""`edgekit keygen`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.frame import Json, command
from edgekit_runtime.cli.parser import print_json


@command("edgekit keygen line-3.key")
def keygen(
    key: Annotated[
        Path,
        typer.Argument(parser=Path, metavar="FILE", help="private key to write; the public one is FILE.pub"),
    ],
    as_json: Json = False,
) -> None:
    """Make a key pair for signing."""
    from edgekit_runtime.formats.signing import make_key

    public = make_key(key)
    if as_json:
        print_json({"private": str(key), "public": str(public)})
    else:
        print(f"private key, keep it: {key}\npublic key, for devices: {public}")
