"""`edgekit rollout`: bundles to the devices of a channel, in waves."""

from __future__ import annotations

from edgekit.cli.frame import CommandGroup
from edgekit.cli.rollout_change import abort, advance, pause, resume
from edgekit.cli.rollout_start import start
from edgekit.cli.rollout_status import status

rollout = CommandGroup(
    "rollout",
    "Bring a bundle to the devices of a channel, wave by wave.",
    (start, status, advance, pause, resume, abort),
)
