"""`edgekit sign`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.frame import Json, command
from edgekit_runtime.cli.parser import print_json


@command("edgekit sign dist/line-3 --key line-3.key")
def sign(
    what: Annotated[Path, typer.Argument(parser=Path, metavar="WHAT", help="bundle folder, or adapter file")],
    key: Annotated[Path, typer.Option(parser=Path, metavar="FILE", help="private key of `edgekit keygen`")],
    as_json: Json = False,
) -> None:
    """Sign a bundle folder or an adapter file."""
    from edgekit_runtime.formats.signing import sign

    signature = sign(what, key)
    print_json({"signature": str(signature)}) if as_json else print(signature)
