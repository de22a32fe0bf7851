"""Pushing what a device says of itself: when that has changed, and now and then."""

from __future__ import annotations

import datetime
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit_runtime.fleet.channel import Channel
from edgekit_runtime.fleet.record import Record
from edgekit_runtime.fleet.report import FAILED, LONGEST_REASON, WAITING, WELL, Report, device_key
from edgekit_runtime.registry.connection import PUSH, WAITS, Connection
from edgekit_runtime.registry.reference import Reference
from edgekit_runtime.registry.upload import put_file

AGAIN_SECONDS = 3600.0  # after which a device says that it is still there


@dataclass(frozen=True)
class Place:
    """Where reports go: a repository of their own, that devices may write to; ``ca`` and ``waits`` as for others."""

    repository: Reference
    ca: Path | None = None
    waits: Sequence[float] = WAITS


class Reporter:
    """Pushes the reports of one device."""

    def __init__(self, place: Place, folder: Path) -> None:
        """Nothing is pushed yet; the device's key is in ``folder``."""
        self._place, self._folder = place, folder
        self._last: Report | None = None
        self._pushed = 0.0

    def tell(self, channel: Channel, record: Record, device: str, generation: int | None) -> bool:
        """Push where there is something to say; tells whether that was so.

        Raises:
            InputError: the device's key can't be read.
            TargetError: the registry can't be reached, or refuses.
        """
        report = report_of(channel, record, device, generation)
        still = self._last is not None and replace(report, time=self._last.time, number=self._last.number) == self._last
        if still and time.monotonic() - self._pushed < AGAIN_SECONDS:
            return False
        connection = Connection(self._place.repository, ca=self._place.ca, actions=PUSH, waits=self._place.waits)
        put_file(connection, report.tag, report.signed(device_key(self._folder)))
        self._last, self._pushed = report, time.monotonic()
        return True


def report_of(channel: Channel, record: Record, device: str, generation: int | None) -> Report:
    """What a device has to say of a channel's roll-out."""
    wanted, running, failed = str(channel.bundle.reference.digest), record.running, record.failed
    runs = running.digest if running is not None and running.generation == generation else None
    state, why = WAITING, ""
    if failed is not None and record.has_failed(wanted, channel.rollout):
        state, why = FAILED, failed.why[:LONGEST_REASON]
    elif runs == wanted:
        state = WELL
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return Report(channel.name, device, channel.rollout, state, runs, why, now, record.reports + 1)
