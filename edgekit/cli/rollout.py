"""`edgekit rollout`: bundles to the devices of a channel, in waves."""

from __future__ import annotations

from edgekit.cli.frame import CommandGroup
from edgekit.cli.rollout_change import abort, advance, pause, resume
from edgekit.cli.rollout_start import start
from edgekit.cli.rollout_status import status
from edgekit.cli.rollout_watch import watch

rollout = CommandGroup(
    "rollout",
    "Bring a bundle to the devices of a channel, wave by wave.",
    (start, status, watch, advance, pause, resume, abort),
)
