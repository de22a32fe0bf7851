"""What an agent remembers in its store (``STORE/fleet/agent.json``): what it made run, and what did not do."""

from __future__ import annotations

import json
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgekit_runtime.errors import InputError
from edgekit_runtime.files.durable import replace_file
from edgekit_runtime.files.regular import read_small
from edgekit_runtime.files.strict_json import json_object
from edgekit_runtime.fleet.trusted import FOLDER

AGENT_SCHEMA = "edgekit.agent/1"
_FILE = "agent.json"
_MOST_BYTES = 64 * 1024


@dataclass(frozen=True)
class Running:
    """A bundle's artifact (sha256 of its manifest in the registry), its roll-out, and the generation it became."""

    digest: str
    rollout: int
    generation: int


@dataclass(frozen=True)
class Trying:
    """What is being installed: written before anything changes, so that a device that goes down meanwhile knows.

    Attributes:
        digest: of the artifact.
        rollout: that asks for it.
        before: the generation that was current; None in an empty store.
        starts: how many times it has been judged, or begun to be, after the switch.
        refusals: how many times it could not be installed.
    """

    digest: str
    rollout: int
    before: int | None
    starts: int = 0
    refusals: int = 0


@dataclass(frozen=True)
class Failed:
    """A bundle that was taken back or refused: it is not tried again in the same roll-out."""

    digest: str
    rollout: int
    why: str


@dataclass(frozen=True)
class Record:
    """``device`` is the name that was made for a device which has been given none; ``reports`` were pushed."""

    device: str
    running: Running | None = None
    trying: Trying | None = None
    failed: Failed | None = None
    reports: int = 0

    def has_failed(self, digest: str | None, rollout: int) -> bool:
        """Whether this artifact was taken back or refused in this roll-out."""
        return self.failed is not None and (self.failed.digest, self.failed.rollout) == (digest, rollout)


class Records:
    """The record of a store; one that is damaged is begun anew, as all in it can be found out again."""

    def __init__(self, store: Path, scratch: Path) -> None:
        """Of the store in ``store``, whose temporary area is ``scratch``."""
        self._path, self._scratch = store / FOLDER / _FILE, scratch

    def read(self) -> Record:
        """What is remembered."""
        try:
            document = json_object(read_small(self._path, _MOST_BYTES)) or {}
            if document.get("schema") == AGENT_SCHEMA:
                running, trying, failed = (document[name] for name in ("running", "trying", "failed"))
                return Record(
                    str(document["device"]),
                    None if running is None else Running(**running),
                    None if trying is None else Trying(**trying),
                    None if failed is None else Failed(**failed),
                    int(document["reports"]),
                )
        except (OSError, InputError, KeyError, TypeError, ValueError):
            pass
        record = Record(uuid.uuid4().hex[:12])
        self.write(record)
        return record

    def write(self, record: Record) -> None:
        """Remember.

        Raises:
            OSError: the disk is full, or can't be written.
        """
        document: dict[str, Any] = {"schema": AGENT_SCHEMA, **asdict(record)}
        self._path.parent.mkdir(exist_ok=True)
        replace_file(self._path, json.dumps(document, indent=1).encode(), scratch=self._scratch)
