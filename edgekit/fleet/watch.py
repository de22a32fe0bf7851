"""Roll-outs that go on by themselves: waves open on reports of devices that are well, failures move a channel back."""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.fleet.devices import Devices, Known
from edgekit.fleet.operate import Session
from edgekit.fleet.rollout import abort, advance, channels
from edgekit_runtime.errors import EdgekitError, TargetError
from edgekit_runtime.fleet.channel import ABORTED, PAUSED, Channel
from edgekit_runtime.fleet.report import FAILED, WELL
from edgekit_runtime.registry.connection import WAITS
from edgekit_runtime.registry.reference import Reference

log = logging.getLogger(__name__)

ABORT, ADVANCE, WAIT, END = "abort", "advance", "wait", "end"
_LEAST_SHARE = 0.5  # of the known devices in open waves, which have to be well: others may be asleep


@dataclass(frozen=True)
class Verdict:
    """What has to be done with a roll-out, and why."""

    act: str
    why: str


def judge(channel: Channel, devices: Sequence[Known], now: datetime.datetime) -> Verdict:
    """What the reports say.

    Args:
        channel: as it is.
        devices: all that are known on it.
        now: of the clock that ``devices`` and ``channel.advanced`` have their times of.
    """
    mine = [each for each in devices if each.rollout == channel.rollout]
    failed = [each for each in mine if each.state == FAILED]
    if channel.state == ABORTED:
        return Verdict(END, f"roll-out {channel.rollout} is aborted")
    if len(failed) >= channel.halt_after:
        return Verdict(ABORT, "; ".join(f"{each.device}: {each.why}" for each in failed))
    if channel.state == PAUSED:
        return Verdict(WAIT, "it is paused")
    if not devices:
        return Verdict(WAIT, "no device has reported yet")
    members = [each for each in devices if channel.wave_of(each.device) < channel.opened]
    well = [each for each in members if each.rollout == channel.rollout and each.state == WELL]
    told = f"{len(well)} of {len(members)} devices of open waves are well"
    if len(well) < _LEAST_SHARE * len(members):
        return Verdict(WAIT, told)
    starts = [channel.advanced, *(each.since for each in well)]
    rest = channel.soak - min((now - datetime.datetime.fromisoformat(each)).total_seconds() for each in starts)
    if rest > 0:
        return Verdict(WAIT, f"{told}, {rest:.0f} s to go")
    return Verdict(END, f"all waves are open, {told}") if channel.is_complete else Verdict(ADVANCE, told)


def step(
    session: Session, name: str, reports: Reference, *, ca: Path | None = None, waits: Sequence[float] = WAITS
) -> tuple[Channel, Verdict]:
    """Read all reports once, and do what they say.

    Raises:
        InputError: there is no such channel, or keys are missing.
        TargetError: the registry can't be asked.
    """
    (channel,) = channels(session, name)
    devices = Devices(session.folder.path, name)
    devices.hear(reports, ca=ca, waits=waits)
    now = datetime.datetime.now(datetime.UTC)
    verdict = judge(channel, devices.known(now), now)
    if verdict.act == ABORT:
        channel = abort(session, name)
    elif verdict.act == ADVANCE:
        channel = advance(session, name)
    return channel, verdict


def watch(one_step: Callable[[], tuple[Channel, Verdict]], interval: float) -> tuple[Channel, Verdict]:
    """Take steps until the roll-out has ended; what goes wrong with the registry is tried again.

    Raises:
        InputError: as for :func:`step`.
    """
    said = ""
    while True:
        try:
            channel, verdict = one_step()
        except TargetError as error:
            log.error("%s; looking again", error)
        else:
            if verdict.why != said or verdict.act == ADVANCE:
                log.info("%s: %s", tell_act(channel, verdict), verdict.why)
            said = verdict.why
            if verdict.act in (ABORT, END):
                return channel, verdict
        time.sleep(interval)


def tell_act(channel: Channel, verdict: Verdict) -> str:
    """What was done, in words."""
    waves = f"wave {channel.opened} of {len(channel.waves)}"
    words = {
        ABORT: "halted, the channel goes back",
        ADVANCE: f"{waves} is open now",
        WAIT: f"{waves} waits",
        END: "ended",
    }
    return words[verdict.act]


def halted(channel: Channel, verdict: Verdict) -> EdgekitError:
    """The error that a roll-out ends with which was halted."""
    before = "what runs stays" if channel.before is None else f"devices go back to {channel.before}"
    return TargetError(
        f"{channel.bundle} was halted on {channel.name} ({verdict.why})", f"{before}; mend it, and start anew"
    )
