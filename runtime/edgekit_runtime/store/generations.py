"""Generations: numbered descriptions of what is active; one is current, and switching it is one rename."""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgekit_runtime.errors import InputError
from edgekit_runtime.files.durable import replace_file
from edgekit_runtime.files.regular import read_small
from edgekit_runtime.formats.manifest import AdapterEntry, Manifest, read_adapter_entry

log = logging.getLogger(__name__)

GENERATION_SCHEMA = "edgekit.generation/1"
FOLDER = "generations"
CURRENT = "current"
MAX_POINTER_BYTES, MAX_GENERATION_BYTES = 64, 64 * 1024 * 1024
_NOTHING_EARLIER = InputError("there is no earlier generation", "nothing to roll back to")
_MEND = "roll back with `edgekit-runtime adapters rollback`, or install the bundle again"


@dataclass(frozen=True)
class Generation:
    """One state of a store.

    Attributes:
        number: counts up; never used twice.
        parent: the generation that this one was made from, where a rollback leads; None for the first.
        created: ISO 8601, UTC.
        manifest: base and active adapters, with files by their place in the store.
        installed: every adapter version that can be activated.
    """

    number: int
    parent: int | None
    created: str
    manifest: Manifest
    installed: tuple[AdapterEntry, ...]

    def digests(self) -> set[str]:
        """Objects that this generation needs."""
        return {entry.sha256 for entry in self.manifest.files} | {entry.digest for entry in self.installed}

    def is_like(self, other: Generation) -> bool:
        """Whether both answer the same and have the same installed, whatever their numbers and order."""
        return self._content() == other._content()

    def _content(self) -> tuple[Manifest, list[AdapterEntry]]:
        files = sorted(self.manifest.files, key=lambda file: file.path)
        adapters = tuple(_ordered(self.manifest.adapters))
        return replace(self.manifest, adapters=adapters, files=tuple(files)), _ordered(self.installed)


class Generations:
    """The generations of a store."""

    def __init__(self, root: Path) -> None:
        self._folder, self._scratch, self._current = root / FOLDER, root / "tmp", root / CURRENT

    def numbers(self) -> list[int]:
        """All that are kept, oldest first."""
        found = (re.fullmatch(r"(\d+)\.json", path.name) for path in self._folder.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def current_number(self) -> int | None:
        """Number of the current generation; None in an empty store.

        Raises:
            InputError: the pointer is damaged.
        """
        try:
            text = read_small(self._current, MAX_POINTER_BYTES).decode("ascii").strip()
        except FileNotFoundError:
            return None
        except (OSError, InputError, UnicodeDecodeError) as error:
            raise InputError(f"{self._current} can't be read ({error})", _MEND) from None
        if not text.isdecimal():
            raise InputError(f"{self._current} is damaged", _MEND)
        return int(text)

    def read(self, number: int) -> Generation:
        """Read one generation.

        Raises:
            InputError: missing or damaged.
        """
        path = self._folder / f"{number}.json"
        try:
            document = json.loads(read_small(path, MAX_GENERATION_BYTES))
            if document["schema"] != GENERATION_SCHEMA:
                raise ValueError(f"its schema is {document['schema']!r}")
            parent = document["parent"]
            return Generation(
                number=int(document["number"]),
                parent=None if parent is None else int(parent),
                created=str(document["created"]),
                manifest=Manifest.parse(json.dumps(document["manifest"]), where=str(path), complete=False),
                installed=tuple(read_adapter_entry(each, str(path)) for each in document["installed"]),
            )
        except FileNotFoundError:
            raise InputError(f"the store has no generation {number}", _MEND) from None
        except (OSError, ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise InputError(f"{path} is damaged ({error})", _MEND) from None

    def current(self) -> Generation | None:
        """What is active; None in an empty store.

        Raises:
            InputError: the current generation is damaged.
        """
        number = self.current_number()
        return None if number is None else self.read(number)

    def earlier(self) -> Generation:
        """Where a rollback leads: to the parent, or past what is damaged to the last sound one before it.

        Raises:
            InputError: there is none.
        """
        try:
            current = self.current()
        except InputError:
            return self._last_sound(before=self._pointed())
        if current is None:  # the pointer is gone
            return self._last_sound(before=None)
        if current.parent is None:
            raise _NOTHING_EARLIER
        try:
            return self.read(current.parent)
        except InputError as error:
            log.warning("%s; going further back", error.problem)
            return self._last_sound(before=current.parent)

    def _last_sound(self, before: int | None) -> Generation:
        for each in reversed(self.numbers()):
            if before is None or each < before:
                with contextlib.suppress(InputError):
                    return self.read(each)
        raise _NOTHING_EARLIER

    def _pointed(self) -> int | None:
        """The current generation's number; None when nothing is current, or the pointer is damaged."""
        try:
            return self.current_number()
        except InputError:
            return None

    def commit(self, generation: Generation) -> None:
        """Write the next generation and make it current; only the last step changes what readers see.

        Nothing happens when it says what the current one does: a rollback would seem to do nothing then.
        """
        current = self._pointed()
        with contextlib.suppress(InputError):  # a damaged one is replaced
            if (active := self.current()) is not None and active.is_like(generation):
                return
        number = max([*self.numbers(), current or 0]) + 1
        created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.write(replace(generation, number=number, parent=current, created=created))
        self.switch(number)

    def write(self, generation: Generation) -> None:
        """Add a generation; it is not current yet."""
        document: dict[str, Any] = {
            "schema": GENERATION_SCHEMA,
            "number": generation.number,
            "parent": generation.parent,
            "created": generation.created,
            "manifest": json.loads(generation.manifest.dump()),
            "installed": [asdict(entry) for entry in generation.installed],
        }
        content = json.dumps(document, indent=1).encode()
        replace_file(self._folder / f"{generation.number}.json", content, scratch=self._scratch)

    def switch(self, number: int) -> None:
        """Make a generation the current one."""
        replace_file(self._current, f"{number}\n".encode("ascii"), scratch=self._scratch)

    def drop(self, number: int) -> None:
        """Forget a generation that is not current."""
        path = self._folder / f"{number}.json"
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _ordered(entries: Sequence[AdapterEntry]) -> list[AdapterEntry]:
    return sorted(entries, key=lambda entry: (entry.name, entry.version, entry.digest))
