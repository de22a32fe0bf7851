"""`edgekit rollout advance`, `pause`, `resume` and `abort`: each changes one thing of a channel."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.frame import Json, command
from edgekit.cli.keys_options import KeyFolders
from edgekit.cli.rollout_options import FLEET, ChannelName, Folder, open_session, tell
from edgekit_runtime.cli.arguments import CA

Authority = Annotated[Path | None, typer.Option("--ca", parser=Path, metavar="FILE", help=CA)]


@command("edgekit rollout advance line-3")
def advance(
    channel: ChannelName, folder: Folder = FLEET, keys: KeyFolders = None, ca: Authority = None, as_json: Json = False
) -> None:
    """Open the next wave of a channel."""
    from edgekit.fleet.rollout import advance

    tell(advance(open_session(folder, keys, ca), channel), as_json=as_json)


@command("edgekit rollout pause line-3")
def pause(
    channel: ChannelName, folder: Folder = FLEET, keys: KeyFolders = None, ca: Authority = None, as_json: Json = False
) -> None:
    """Have all devices of a channel stay as they are."""
    from edgekit.fleet.rollout import pause

    tell(pause(open_session(folder, keys, ca), channel), as_json=as_json)


@command("edgekit rollout resume line-3")
def resume(
    channel: ChannelName, folder: Folder = FLEET, keys: KeyFolders = None, ca: Authority = None, as_json: Json = False
) -> None:
    """Go on with a roll-out that was paused."""
    from edgekit.fleet.rollout import resume

    tell(resume(open_session(folder, keys, ca), channel), as_json=as_json)


@command("edgekit rollout abort line-3")
def abort(
    channel: ChannelName, folder: Folder = FLEET, keys: KeyFolders = None, ca: Authority = None, as_json: Json = False
) -> None:
    """Have all devices of a channel run what they ran before the roll-out."""
    from edgekit.fleet.rollout import abort

    tell(abort(open_session(folder, keys, ca), channel), as_json=as_json)
