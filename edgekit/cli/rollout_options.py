"""What the commands of roll-outs have in common."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit_runtime.cli.parser import print_json

if TYPE_CHECKING:
    from edgekit.fleet.operate import Session
    from edgekit_runtime.fleet.channel import Channel

ChannelName = Annotated[str, typer.Argument(metavar="CHANNEL", help="channel that devices are on")]
Folder = Annotated[
    Path, typer.Option("--folder", parser=Path, metavar="DIR", help="folder of the fleet (default: fleet, here)")
]
FLEET = Path("fleet")


def open_session(folder: Path, keys: list[Path] | None, ca: Path | None) -> Session:
    """The fleet in a folder."""
    from edgekit.fleet.operate import Session

    return Session(folder, keys or [], ca=ca)


def tell(channel: Channel, *, as_json: bool) -> None:
    """Print what a channel says."""
    print_json(as_document(channel)) if as_json else print(as_text(channel))


def as_document(channel: Channel) -> dict[str, Any]:
    """A channel for --json."""
    return {
        "channel": channel.name,
        "rollout": channel.rollout,
        "state": channel.state,
        "created": channel.created,
        "waves": list(channel.waves),
        "opened": channel.opened,
        "advanced": channel.advanced,
        "soak": channel.soak,
        "halt_after": channel.halt_after,
        "bundle": channel.bundle.document(),
        "before": channel.before and channel.before.document(),
    }


def as_text(channel: Channel) -> str:
    """A channel in a few lines."""
    from edgekit_runtime.fleet.channel import RUNNING

    waves = "  ".join(
        f"[{share:g}%]" if number < channel.opened else f"{share:g}%" for number, share in enumerate(channel.waves)
    )
    state = "all waves are open" if channel.is_complete and channel.state == RUNNING else channel.state
    before = "nothing" if channel.before is None else f"{channel.before}  {channel.before.reference}"
    lines = [
        f"{channel.name}: roll-out {channel.rollout}, {state}, since {channel.created}",
        f"  bundle  {channel.bundle}  {channel.bundle.reference}",
        f"  before  {before}",
        f"  waves   {waves}  (open in brackets)",
    ]
    return "\n".join(lines)
