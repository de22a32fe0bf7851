"""The agent of a device: it makes its store run what the fleet's channel says, and takes back what does not do."""

from __future__ import annotations

import contextlib
import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit_runtime.errors import EdgekitError, InputError, NoRoom, UsageError, shown
from edgekit_runtime.files.lock import take
from edgekit_runtime.fleet.channel import Channel, Release, channel_file
from edgekit_runtime.fleet.record import Failed, Record, Records, Running, Trying
from edgekit_runtime.fleet.reporter import Place, Reporter
from edgekit_runtime.fleet.trusted import FOLDER, TrustedFleet
from edgekit_runtime.formats.manifest import MAX_WORD, Manifest
from edgekit_runtime.registry.connection import WAITS, Connection
from edgekit_runtime.registry.reference import Reference
from edgekit_runtime.registry.source import RegistryBundle
from edgekit_runtime.store import Store
from edgekit_runtime.store.objects import SCRATCH

log = logging.getLogger(__name__)

Health = Callable[[Manifest], str | None]
MIB = 1024**2
LONGEST_SECONDS = 3600.0  # between two looks, where the last ones have failed
_JITTER = 0.25  # share of the interval, so that devices that start together don't ask together
_LOCK = "agent.lock"
_MOST_STARTS = 3  # of a bundle on a device that goes down before it has been judged
_MOST_REFUSALS = 3
NEXT = "roll out one that works: it is not tried again in this roll-out"
_WENT_DOWN = "the device, or this agent, went down each time while it was tried"


@dataclass(frozen=True)
class Membership:
    """Where a device belongs.

    Attributes:
        fleet: the fleet's repository.
        channel: that the device is on.
        device: its name, which decides on its waves; None for one that the store makes.
        ca: certificates (PEM) that the registry's may be of, besides the system's.
        rate: bytes a second that downloads may take; None for all.
        waits: seconds before each next try where a connection breaks.
        reports: where the device says how it is; None where it says nothing.
    """

    fleet: Reference
    channel: str
    device: str | None = None
    ca: Path | None = None
    rate: float | None = None
    waits: Sequence[float] = WAITS
    reports: Place | None = None


@dataclass(frozen=True)
class Round:
    """What one look at the fleet came to: what was done, in words, and what runs now.

    Attributes:
        device: its name.
        wave: that it is in, counted from 1.
        channel: what the channel says.
        did: ``installed`` or ``nothing``.
        why: in words.
        generation: of the store, now.
        failed: whether the device stays as it is because the bundle does not work there.
    """

    device: str
    wave: int
    channel: Channel
    did: str
    why: str
    generation: int | None
    failed: bool = False


class Agent:
    """Works on one store, alone."""

    def __init__(self, store: Store, membership: Membership, health: Sequence[Health] = ()) -> None:
        """Nothing is asked yet.

        Args:
            store: of the device.
            membership: where it belongs.
            health: each says what is wrong with the generation that has become current; None where it is well.

        Raises:
            UsageError: no channel, or no device, can be called so.
        """
        name = membership.device
        if name is not None and not (name and len(name) <= MAX_WORD and name.isprintable()):
            raise UsageError(f"{shown(name)} can't be a device", f"use up to {MAX_WORD} signs that can be printed")
        self._store, self._membership, self._health = store, membership, health
        scratch = store.root / SCRATCH
        self._fleet, self._records = TrustedFleet(store.root, scratch), Records(store.root, scratch)
        self._file = channel_file(membership.channel)
        place = membership.reports
        self._reporter = None if place is None else Reporter(place, store.root / FOLDER)
        self._said: Channel | None = None  # what the channel said last

    @contextlib.contextmanager
    def at_work(self, root: Path | None) -> Iterator[None]:
        """Be the one agent of the store, for the block.

        Args:
            root: the fleet's root, where the store has none yet.

        Raises:
            InputError: another agent is at work on the store, or the root can't be trusted.
        """
        (self._store.root / FOLDER).mkdir(exist_ok=True)
        with (self._store.root / FOLDER / _LOCK).open("ab") as lock:
            if not take(lock):
                raise InputError(f"another agent is at work on {self._store.root}", "stop that one first")
            self._fleet.begin(root)
            yield

    def look(self) -> Round:
        """Read the channel once, and do what it says.

        Raises:
            InputError: the fleet's metadata or the bundle is refused, or was taken back; what ran before runs on.
            TargetError: the registry can't be reached; nothing changes.
        """
        try:
            found = self._look()
        except EdgekitError:
            self._tell()
            raise
        self._tell()
        return found

    def _look(self) -> Round:
        record = self._unrefused(self._records.read())
        channel = self._channel()
        device = self._membership.device or record.device
        wave = channel.wave_of(device) + 1
        wanted = channel.wanted(device)
        why = self._reason_to_stay(record, channel, wanted)
        if wanted is None or why is not None:
            failed = wanted is not None and record.has_failed(wanted.reference.digest, channel.rollout)
            return Round(device, wave, channel, "nothing", str(why), self._number(), failed)
        size = self._install(record, channel, wanted)
        said = f"{wanted} runs now, {size / MIB:.1f} MiB downloaded"
        return Round(device, wave, channel, "installed", said, self._number())

    def run(self, interval: float, sleep: Callable[[float], object] = time.sleep) -> None:
        """Look for ever; what goes wrong is logged, and looked at again later and later.

        Args:
            interval: seconds between two looks, give or take a quarter.
            sleep: waits for so many seconds.
        """
        failures, said = 0, ""
        while True:
            try:
                found = self.look()
            except (EdgekitError, OSError) as error:
                failures += 1
                log.error("%s; what runs goes on", error)
                said = ""
            else:
                failures = 0
                if found.did != "nothing" or found.why != said:
                    log.info("%s: %s", found.channel.name, found.why)
                said = found.why
            sleep(pause(interval, failures))

    def _channel(self) -> Channel:
        member = self._membership
        connection = Connection(member.fleet, ca=member.ca, waits=member.waits)
        content = self._fleet.read(connection, self._file)
        if content is None:
            hint = "see the name, or begin one: `edgekit rollout start`"
            raise InputError(f"{member.fleet} has no channel {member.channel}", hint)
        self._said = Channel.parse(content, member.channel)
        return self._said

    def _tell(self) -> None:
        """Report, where that is wanted and possible: what runs doesn't depend on it."""
        if self._reporter is None or self._said is None:
            return
        record = self._records.read()
        device = self._membership.device or record.device
        try:
            if self._reporter.tell(self._said, record, device, self._number()):
                self._write(replace(record, reports=record.reports + 1))
        except (EdgekitError, OSError) as error:
            log.warning("no report was pushed: %s", error)

    def _reason_to_stay(self, record: Record, channel: Channel, wanted: Release | None) -> str | None:
        if wanted is None:
            runs = "keeps what runs" if self._number() is not None else "has nothing to run yet"
            return f"roll-out {channel.rollout} is {channel.state}, this device {runs}"
        digest, failed, running = str(wanted.reference.digest), record.failed, record.running
        if failed is not None and record.has_failed(digest, channel.rollout):
            return f"{wanted} does not work on this device: {failed.why}"
        if running is not None and (running.digest, running.generation) == (digest, self._number()):
            return f"{wanted} runs, as the channel says"
        return None

    def _install(self, record: Record, channel: Channel, wanted: Release) -> int:
        """Install and judge; returns the bytes that were downloaded."""
        digest, trying = str(wanted.reference.digest), record.trying
        if trying is None or (trying.digest, trying.rollout) != (digest, channel.rollout):
            trying = Trying(digest, channel.rollout, self._number())
        record = self._write(replace(record, trying=trying))
        log.info("%s: installing %s", channel.name, wanted)
        member = self._membership
        try:
            source = RegistryBundle(wanted.reference, ca=member.ca, waits=member.waits, rate=member.rate)
            self._store.install_pulled(source, alone=True)
        except InputError as error:
            self._refused(record, trying, error)
            raise
        trying = replace(trying, starts=trying.starts + 1)
        record = self._write(replace(record, trying=trying))
        problem = _WENT_DOWN if trying.starts > _MOST_STARTS else self._problem()
        if problem is not None:
            raise self._taken_back(record, trying, str(wanted), problem)
        running = Running(digest, channel.rollout, self._number() or 0)
        self._write(replace(record, running=running, trying=None, failed=None))
        with contextlib.suppress(InputError):  # it is for room alone
            self._store.gc()
        return source.downloaded

    def _refused(self, record: Record, trying: Trying, error: InputError) -> None:
        """Count: a bundle that is refused again and again would be downloaded again and again; but room may come."""
        if isinstance(error, NoRoom):
            return
        trying = replace(trying, refusals=trying.refusals + 1)
        if trying.refusals < _MOST_REFUSALS:
            self._write(replace(record, trying=trying))
        else:
            self._write(replace(record, trying=None, failed=Failed(trying.digest, trying.rollout, error.problem)))

    def _write(self, record: Record) -> Record:
        self._records.write(record)
        return record

    def _number(self) -> int | None:
        """The current generation; None in an empty store, and where that is damaged: it is installed anew then."""
        try:
            return self._store.number
        except InputError:
            return None

    def _problem(self) -> str | None:
        manifest = self._store.bundle().manifest
        for judge in self._health:
            if (problem := judge(manifest)) is not None:
                return problem
        return None

    def _taken_back(self, record: Record, trying: Trying, what: str, why: str) -> InputError:
        """Roll back, remember, and say so."""
        earlier = "nothing had changed, so what runs stays"
        if self._number() != trying.before:
            try:
                earlier = f"generation {self._store.rollback()} runs again"
            except InputError as error:
                earlier = error.problem
        self._write(replace(record, running=None, trying=None, failed=Failed(trying.digest, trying.rollout, why)))
        return InputError(f"{what} does not work on this device ({why}); {earlier}", NEXT)

    def _unrefused(self, record: Record) -> Record:
        """Take a generation back whose adapters the service has set aside since: the engine died of them.

        Raises:
            InputError: there are such.
        """
        running = record.running
        if running is None or running.generation != self._number():
            return record
        try:
            manifest = self._store.bundle().manifest
        except InputError as error:
            log.warning("%s; installing it anew", error.problem)
            return replace(record, running=None)
        digests = {entry.digest: f"{entry.name} {entry.version}" for entry in manifest.adapters}
        refused = self._store.refusals.among(digests, manifest.base.digest, manifest.engine)
        if not refused:
            return record
        why = "; ".join(f"{digests[digest]}: {reason}" for digest, reason in refused.items())
        trying = Trying(running.digest, running.rollout, None)
        raise self._taken_back(record, trying, f"{manifest.name} {manifest.version}", why)


def pause(interval: float, failures: int) -> float:
    """Seconds until the next look: twice as long after each failure, an hour at most, give or take a quarter."""
    longest = max(interval, LONGEST_SECONDS)
    return min(interval * 2.0 ** min(failures, 30), longest) * random.uniform(1 - _JITTER, 1 + _JITTER)
