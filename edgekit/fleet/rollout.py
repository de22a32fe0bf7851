"""Roll-outs: a bundle goes to the devices of a channel in waves, which the operator opens."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from edgekit.fleet.metadata import Fleet
from edgekit.fleet.operate import Session
from edgekit.fleet.published import target_file
from edgekit.targets.push import Pushed, push
from edgekit_runtime.errors import InputError, UsageError
from edgekit_runtime.fleet.channel import ABORTED, PAUSED, RUNNING, SOAK_SECONDS, Channel, Release, channel_file

Change = Callable[[Channel], Channel]


def start(
    session: Session,
    name: str,
    bundle: Path,
    waves: Sequence[float],
    *,
    soak: float = SOAK_SECONDS,
    halt_after: int = 1,
) -> tuple[Channel, Pushed]:
    """Push a bundle, and roll it out to the first wave of a channel; a new name makes a channel.

    Args:
        session: of the fleet.
        name: of the channel.
        bundle: folder or .tar.
        waves: shares in per cent, rising to 100.
        soak: seconds that devices have to be well before `watch` opens the next wave.
        halt_after: so many devices that failed have `watch` abort the roll-out.

    Raises:
        UsageError: no channel can be called so.
        InputError: the last roll-out is under way, no bundle, or keys are missing.
        TargetError: the registry can't be reached, or refuses.
    """
    file = channel_file(name)
    fleet = session.published.newest()
    session.maker.check_signers(fleet)
    last = _read(session, fleet, name)
    if last is not None and last.state != ABORTED and not last.is_complete:
        hint = f"`edgekit rollout advance {name}` until all waves are open, or `edgekit rollout abort {name}`"
        raise InputError(f"the roll-out of {last.bundle} on {name} is under way", hint)
    number = 1 if last is None else last.rollout + 1
    pushed = push(bundle, replace(session.folder.registry, tag=f"{name}-{number}"), ca=session.ca, waits=session.waits)
    reference = replace(pushed.reference, tag=None)
    before = None if last is None else last.before if last.state == ABORTED else last.bundle
    now, release = _now(), Release(reference, pushed.name, pushed.version)
    channel = Channel(name, number, now, release, before, tuple(waves), 1, RUNNING, now, soak, halt_after)
    _publish(session, fleet, file, channel)
    return channel, pushed


def advance(session: Session, name: str) -> Channel:
    """Open the next wave.

    Raises:
        UsageError: all are open.
        InputError: the roll-out does not run, there is no such channel, or keys are missing.
        TargetError: the registry can't be reached.
    """

    def change(channel: Channel) -> Channel:
        if channel.state != RUNNING:
            hint = f"`edgekit rollout resume {name}` first" if channel.state == PAUSED else "start a new one"
            raise InputError(f"the roll-out of {channel.bundle} on {name} is {channel.state}", hint)
        if channel.is_complete:
            raise UsageError(f"all waves of {name} are open", "there is nothing more to do")
        return replace(channel, opened=channel.opened + 1, advanced=_now())

    return _change(session, name, change)


def pause(session: Session, name: str) -> Channel:
    """Have all devices of a channel stay as they are.

    Raises:
        InputError: it does not run, there is no such channel, or keys are missing.
        TargetError: the registry can't be reached.
    """
    return _change(session, name, _state(PAUSED, RUNNING))


def resume(session: Session, name: str) -> Channel:
    """Go on with a roll-out that was paused.

    Raises:
        InputError: it is not paused, there is no such channel, or keys are missing.
        TargetError: the registry can't be reached.
    """
    return _change(session, name, _state(RUNNING, PAUSED))


def abort(session: Session, name: str) -> Channel:
    """Have all devices of a channel run what they ran before this roll-out.

    Raises:
        InputError: it was aborted before, there is no such channel, or keys are missing.
        TargetError: the registry can't be reached.
    """
    return _change(session, name, _state(ABORTED, RUNNING, PAUSED))


def channels(session: Session, name: str | None = None) -> list[Channel]:
    """One channel, or all of a fleet.

    Raises:
        InputError: there is no such channel, or what is published is not sound.
        TargetError: the registry can't be asked.
    """
    fleet = session.published.newest()
    known = [each.removesuffix(".json") for each in sorted(fleet.targets.signed.targets)]
    return [_existing(session, fleet, each) for each in (known if name is None else [name])]


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _state(to: str, *of: str) -> Change:
    def change(channel: Channel) -> Channel:
        if channel.state not in of:
            raise InputError(f"the roll-out of {channel.bundle} on {channel.name} is {channel.state}", "see its status")
        return replace(channel, state=to)

    return change


def _change(session: Session, name: str, change: Change) -> Channel:
    fleet = session.published.newest()
    channel = change(_existing(session, fleet, name))
    _publish(session, fleet, channel_file(name), channel)
    return channel


def _existing(session: Session, fleet: Fleet, name: str) -> Channel:
    channel = _read(session, fleet, name)
    if channel is None:
        known = ", ".join(sorted(each.removesuffix(".json") for each in fleet.targets.signed.targets)) or "none"
        raise InputError(f"there is no channel {name}", f"channels: {known}")
    return channel


def _read(session: Session, fleet: Fleet, name: str) -> Channel | None:
    content = session.published.content(channel_file(name), fleet)
    return None if content is None else Channel.parse(content, name)


def _publish(session: Session, fleet: Fleet, file: str, channel: Channel) -> None:
    content = channel.dump()
    after = session.maker.with_targets(fleet, {file: content})
    session.published.publish(fleet, after, {target_file(file, hashlib.sha256(content).hexdigest()): content})
