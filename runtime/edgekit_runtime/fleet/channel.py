"""A channel (schema ``edgekit.channel/1``): which bundle the devices on it run, and which of them run it first."""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import re
from dataclasses import dataclass
from typing import Any

from edgekit_runtime.errors import InputError, UsageError, shown
from edgekit_runtime.files.strict_json import json_object
from edgekit_runtime.formats.manifest import MAX_WORD, NAME_PATTERN, VERSION_PATTERN
from edgekit_runtime.registry.reference import Reference

CHANNEL_SCHEMA = "edgekit.channel/1"
RUNNING, PAUSED, ABORTED = STATES = ("running", "paused", "aborted")
LONGEST_CHANNEL = 58  # with a sha256 before it and .json behind, it is a tag
MOST_WAVES = 100
SOAK_SECONDS = 600.0
_LONGEST_SOAK = 1e9
_WHOLE = 100.0  # per cent
_MEND = "start a new roll-out with this version of edgekit, or bring a newer one to this device"


@dataclass(frozen=True)
class Release:
    """A bundle that devices run: its digest in a registry, and what it calls itself."""

    reference: Reference
    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {"reference": str(self.reference), "name": self.name, "version": self.version}


@dataclass(frozen=True)
class Channel:
    """What a channel says now.

    Attributes:
        name: of the channel.
        rollout: counts up with each bundle that is rolled out.
        created: when the roll-out began, ISO 8601, UTC.
        bundle: what is rolled out.
        before: what devices of waves that are not open run; None for the first bundle.
        waves: the share of devices that each wave and those before it have, in per cent, rising to 100.
        opened: how many waves are open.
        advanced: when the last of them was opened, ISO 8601, UTC.
        soak: seconds that devices have to be well before the next wave opens by itself.
        halt_after: so many devices that failed abort the roll-out.
        state: ``running``; ``paused``, where no device changes anything; ``aborted``, where all run ``before``.
    """

    name: str
    rollout: int
    created: str
    bundle: Release
    before: Release | None
    waves: tuple[float, ...]
    opened: int
    state: str
    advanced: str
    soak: float = SOAK_SECONDS
    halt_after: int = 1

    @classmethod
    def parse(cls, content: bytes, name: str) -> Channel:
        """Read a channel's file.

        Raises:
            InputError: it is none, or of another channel.
        """
        document: dict[str, Any] = json_object(content) or {}
        if document.get("schema") != CHANNEL_SCHEMA:
            raise InputError(f"channel {name} has the schema {shown(str(document.get('schema')))}", _MEND)
        first = ("rollout", "created", "opened", "advanced", "waves")
        given: list[Any] = [document.get(each) for each in (*first, "before", "state", "soak", "halt_after")]
        rollout, created, opened, advanced, waves, before, state, soak, halt_after = given
        sound = type(rollout) is int and rollout > 0 and _is_time(created) and _is_time(advanced)
        sound = sound and type(halt_after) is int and halt_after > 0
        sound = sound and type(soak) in (int, float) and 0 <= soak < _LONGEST_SOAK
        if not sound or state not in STATES or not _are_waves(waves) or document.get("channel") != name:
            raise InputError(f"channel {name} is damaged", _MEND)
        if type(opened) is not int or not 0 < opened <= len(waves):
            raise InputError(f"channel {name} has {len(waves)} waves, {shown(str(opened))} of them open", _MEND)
        return cls(
            name,
            rollout,
            created,
            _release(document.get("bundle"), name),
            None if before is None else _release(before, name),
            tuple(map(float, waves)),
            opened,
            state,
            advanced,
            float(soak),
            halt_after,
        )

    def dump(self) -> bytes:
        """As the bytes of its file."""
        document = {
            "schema": CHANNEL_SCHEMA,
            "channel": self.name,
            "rollout": self.rollout,
            "created": self.created,
            "bundle": self.bundle.document(),
            "before": self.before and self.before.document(),
            "waves": self.waves,
            "opened": self.opened,
            "advanced": self.advanced,
            "soak": self.soak,
            "halt_after": self.halt_after,
            "state": self.state,
        }
        return json.dumps(document, indent=1, ensure_ascii=False).encode()

    @property
    def is_complete(self) -> bool:
        """Whether all waves are open."""
        return self.opened == len(self.waves)

    def wave_of(self, device: str) -> int:
        """The wave that a device is in, counted from 0: even over devices, and another one in each roll-out."""
        seed = hashlib.sha256(f"{self.name}\n{self.rollout}\n{device}".encode()).digest()
        place = int.from_bytes(seed[:8], "big") / 2**64 * _WHOLE
        return next(number for number, share in enumerate(self.waves) if place < share)

    def wanted(self, device: str) -> Release | None:
        """What a device runs; None for whatever runs there now."""
        if self.state == PAUSED:
            return None
        if self.state == ABORTED or self.wave_of(device) >= self.opened:
            return self.before
        return self.bundle


def channel_file(name: str) -> str:
    """The target of a channel.

    Raises:
        UsageError: no channel can be called so.
    """
    if not re.fullmatch(NAME_PATTERN, name) or len(name) > LONGEST_CHANNEL:
        raise UsageError(f"{shown(name)} can't be a channel", f"use up to {LONGEST_CHANNEL} of a-z, 0-9, . _ and -")
    return f"{name}.json"


def _are_waves(waves: Any) -> bool:
    if not isinstance(waves, list) or not 0 < len(waves) <= MOST_WAVES:
        return False
    numbers = all(type(each) in (int, float) and math.isfinite(each) and each > 0 for each in waves)
    return numbers and list(waves) == sorted(set(waves)) and waves[-1] == _WHOLE


def _is_time(text: Any) -> bool:
    try:
        return datetime.datetime.fromisoformat(text).tzinfo is not None
    except (TypeError, ValueError):
        return False


def read_waves(text: str) -> tuple[float, ...]:
    """Waves as a user writes them: ``5%,25%,100%``.

    Raises:
        UsageError: they don't rise to 100%.
    """
    try:
        waves = [float(each.strip().removesuffix("%")) for each in text.split(",")]
    except ValueError:
        waves = []
    if not _are_waves(waves):
        raise UsageError(f"waves can't be {shown(text)}", "write shares that rise to 100%: 5%,25%,100%")
    return tuple(waves)


def _release(document: Any, channel: str) -> Release:
    given = document if isinstance(document, dict) else {}
    reference, name, version = (given.get(key) for key in ("reference", "name", "version"))
    named = isinstance(name, str) and 0 < len(name) <= MAX_WORD and name.isprintable()
    if not named or not isinstance(version, str) or not re.fullmatch(VERSION_PATTERN, version):
        raise InputError(f"channel {channel} names no bundle", _MEND)
    parsed = Reference.parse(reference if isinstance(reference, str) else "")
    if parsed.digest is None:
        raise InputError(f"channel {channel} names no digest", _MEND)
    return Release(parsed, str(name), version)
