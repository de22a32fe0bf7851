"""`edgekit rollout start`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.frame import Json, command
from edgekit.cli.keys_options import KeyFolders
from edgekit.cli.options import Bundle, read
from edgekit.cli.rollout_options import FLEET, ChannelName, Folder, as_document, as_text, open_session
from edgekit_runtime.cli.arguments import CA, duration, whole
from edgekit_runtime.cli.parser import print_json

MIB = 1024**2
_WAVES = "5%,25%,100%"


@command("edgekit rollout start line-3 dist/line-3 --waves 5%,25%,100%")
def start(
    channel: ChannelName,
    bundle: Bundle,
    folder: Folder = FLEET,
    waves: Annotated[
        str, typer.Option(metavar="SHARES", help=f"shares of the devices, each with those before ({_WAVES})")
    ] = _WAVES,
    soak: Annotated[
        float | None,
        typer.Option(parser=read(duration), metavar="TIME", help="that devices are well before `watch` goes on (10m)"),
    ] = None,
    halt_after: Annotated[
        int, typer.Option(parser=read(whole()), metavar="N", help="so many failures have `watch` abort it (1)")
    ] = 1,
    keys: KeyFolders = None,
    ca: Annotated[Path | None, typer.Option(parser=Path, metavar="FILE", help=CA)] = None,
    as_json: Json = False,
) -> None:
    """Push a bundle, and have the first wave of a channel's devices run it."""
    from edgekit.fleet.rollout import start
    from edgekit_runtime.fleet.channel import SOAK_SECONDS, read_waves

    shares = read_waves(waves)
    started, pushed = start(
        open_session(folder, keys, ca), channel, bundle, shares, soak=soak or SOAK_SECONDS, halt_after=halt_after
    )
    if as_json:
        print_json(as_document(started) | {"sent": pushed.sent, "signed": pushed.signed})
    else:
        signed = "with its signature" if pushed.signed else "not signed"
        print(f"{as_text(started)}\n{pushed.sent / MIB:.1f} MiB sent, {signed}")
