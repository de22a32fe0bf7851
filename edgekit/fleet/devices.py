"""What an operator knows of the devices on a channel (``FOLDER/devices/CHANNEL.json``): their reports, and since when.

A device's key is the one that its first report was signed by.  Times are of the operator's clock.
"""

from __future__ import annotations

import datetime
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from edgekit_runtime.errors import InputError, one_line
from edgekit_runtime.files.durable import replace_file
from edgekit_runtime.files.regular import read_small
from edgekit_runtime.files.strict_json import json_object
from edgekit_runtime.fleet.channel import channel_file
from edgekit_runtime.fleet.report import MOST_BYTES, SignedReport, channel_of
from edgekit_runtime.registry.connection import WAITS, Connection
from edgekit_runtime.registry.reference import Reference
from edgekit_runtime.registry.repository import tags
from edgekit_runtime.registry.small_file import read_file

log = logging.getLogger(__name__)

DEVICES_SCHEMA = "edgekit.devices/1"
LOST_DAYS = 30  # after which a device that says nothing is not counted
_FOLDER = "devices"
_MOST_FILE = 256 * 1024 * 1024


@dataclass(frozen=True)
class Known:
    """A device: its last report, the key that it uses, when it was heard of last, since when its state is this one."""

    device: str
    key: str
    number: int
    rollout: int
    state: str
    why: str
    heard: str
    since: str


class Devices:
    """Those of one channel."""

    def __init__(self, folder: Path, channel: str) -> None:
        """Read what the fleet's folder has of them.

        Raises:
            InputError: it is damaged.
        """
        self._path, self._channel = folder / _FOLDER / channel_file(channel), channel
        self._known = self._read()

    def known(self, now: datetime.datetime) -> list[Known]:
        """All that were heard of in the last 30 days, by name."""
        least = now - datetime.timedelta(days=LOST_DAYS)
        heard = (each for each in self._known.values() if datetime.datetime.fromisoformat(each.heard) >= least)
        return sorted(heard, key=lambda each: each.device)

    def hear(self, repository: Reference, *, ca: Path | None = None, waits: Sequence[float] = WAITS) -> None:
        """Read all reports, and remember them; what is no report of a device is passed over, and said.

        Raises:
            TargetError: the registry can't be asked.
            InputError: its list of tags is none, or the folder can't be written.
        """
        connection = Connection(repository, ca=ca, waits=waits)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        for tag in tags(connection):
            if channel_of(tag) != self._channel:
                continue
            try:
                content = read_file(connection, tag, MOST_BYTES)
                if content is not None:
                    self._take(SignedReport.parse(content, f"{repository}:{tag}"), tag, now)
            except InputError as error:
                log.warning("%s", error)
        self._write()

    def _take(self, signed: SignedReport, tag: str, now: str) -> None:
        report, before = signed.report, self._known.get(signed.report.device)
        if report.tag != tag or report.channel != self._channel:
            raise InputError(f"the report under {tag} is of another device or channel", "see who pushes there")
        if before is not None and signed.key != before.key:
            hint = f"if it was set up anew, take it out of {self._path}"
            raise InputError(f"the report of {report.device} is signed by another key than its first one", hint)
        if before is not None and report.number <= before.number:
            if report.number < before.number:
                raise InputError(f"the report of {report.device} is an old one", "see who pushes there")
            return
        same = before is not None and (before.rollout, before.state) == (report.rollout, report.state)
        since = before.since if before is not None and same else now
        self._known[report.device] = Known(
            report.device, signed.key, report.number, report.rollout, report.state, one_line(report.why), now, since
        )

    def _read(self) -> dict[str, Known]:
        try:
            document: dict[str, Any] = json_object(read_small(self._path, _MOST_FILE)) or {}
            if document.get("schema") != DEVICES_SCHEMA:
                raise ValueError("another schema")
            names = [each.name for each in fields(Known)]
            return {each["device"]: Known(**{name: each[name] for name in names}) for each in document["devices"]}
        except FileNotFoundError:
            return {}
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{self._path} is damaged ({error})", "remove it: devices report again") from None

    def _write(self) -> None:
        document = {"schema": DEVICES_SCHEMA, "devices": [asdict(each) for each in self._known.values()]}
        try:
            self._path.parent.mkdir(exist_ok=True)
            replace_file(self._path, json.dumps(document, indent=1).encode(), scratch=self._path.parent)
        except OSError as error:
            raise InputError(
                f"{self._path} can't be written ({error.strerror})", "check permissions, and room"
            ) from None
