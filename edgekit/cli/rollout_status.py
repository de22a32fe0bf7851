"""`edgekit rollout status`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.frame import Json, command
from edgekit.cli.rollout_options import FLEET, Folder, as_document, as_text, open_session
from edgekit_runtime.cli.arguments import CA
from edgekit_runtime.cli.parser import print_json


@command("edgekit rollout status line-3")
def status(
    channel: Annotated[str | None, typer.Argument(metavar="[CHANNEL]", help="one channel (default: all)")] = None,
    folder: Folder = FLEET,
    ca: Annotated[Path | None, typer.Option(parser=Path, metavar="FILE", help=CA)] = None,
    as_json: Json = False,
) -> None:
    """What the channels of a fleet say; needs no keys."""
    from edgekit.fleet.rollout import channels

    found = channels(open_session(folder, None, ca), channel)
    if as_json:
        print_json({"channels": [as_document(each) for each in found]})
    else:
        print("\n".join(map(as_text, found)) or "there are no channels yet")
