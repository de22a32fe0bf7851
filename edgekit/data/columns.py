"""Columns that a project leaves out or calls by other names, and what is said of those that no row has."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any

from edgekit.data.source import EVERYTHING, MESSAGE_COLUMNS
from edgekit.data.values import name, names
from edgekit_runtime.errors import InputError

# They name a row and can't change what it teaches, whatever is in them.
BOOKKEEPING = ("id", "_id", "row_id", "uuid", "idx", "index", "__index_level_0__")
# Where a row comes from, as `edgekit data generate` and `label` write it: an object, or its JSON in a table.
PROVENANCE = "provenance"


class Columns:
    """``ignore`` and ``columns`` of a project file, applied to the rows of one source."""

    def __init__(self, ignore: Collection[str] = (), renamed: Mapping[str, str] | None = None) -> None:
        """Leave out ``ignore``; ``renamed`` maps keys of rows to the columns that stand for them."""
        self.everything = EVERYTHING in ignore
        self._ignored = frozenset(ignore)
        self._renamed = dict(renamed or {})
        self._found: set[str] = set()

    def apply(self, document: Mapping[str, Any], where: str) -> dict[str, Any]:
        """A row's object without what is ignored or null, under the keys of rows.

        Raises:
            InputError: a column would take the place of another one.
        """
        renamed = set(self._renamed.values())
        kept = {
            key: value
            for key, value in document.items()
            if key in renamed or not (key in self._ignored or _names_row(key, value))
        }
        self._found.update(renamed & set(kept))
        moved = {key: kept.pop(theirs) for key, theirs in self._renamed.items() if theirs in kept}
        for key in moved:
            if key in kept:
                raise InputError(f"{where}: there is a column {key} besides {self._renamed[key]}", ignoring([key]))
        return {key: value for key, value in (kept | moved).items() if value is not None}

    def ignores_in_messages(self, key: str, *, known: bool) -> bool:
        """Whether a key of messages is left out; ``*`` stands for those that are not ``known`` only."""
        return f"{MESSAGE_COLUMNS}{key}" in self._ignored or (self.everything and not known)

    def check_found(self, source: str) -> None:
        """Refuse a mapping from columns that no row has.

        Raises:
            InputError: there is such a one; an optional key would be missing in all rows, and nobody would see it.
        """
        missing = [theirs for theirs in self._renamed.values() if theirs not in self._found]
        if missing:
            raise InputError(
                f"no row of {source} has the column {names(missing)}", "correct columns: under data: in edgekit.yaml"
            )


def refuse_unknown(unknown: Collection[str], allowed: Collection[str], where: str, prefix: str = "") -> InputError:
    """The error for keys that no row of this kind has; it says what they may have meant, and how to leave them out."""
    close = {key: difflib.get_close_matches(str(key), allowed, 1, cutoff=0.75) for key in unknown}
    meant = [f"did you mean {found[0]}?" for found in close.values() if found]
    hint = " ".join([*meant[:1], ignoring([f"{prefix}{key}" for key in unknown])])
    return InputError(f"{where}: the keys {names(unknown)} are not known here", hint)


def ignoring(keys: Collection[str]) -> str:
    """How to leave keys out."""
    listed = ", ".join(map(name, keys))
    return f"to leave it out, write ignore: [{listed}] under data: in edgekit.yaml"


def _names_row(key: str, value: Any) -> bool:
    if key == PROVENANCE:
        return isinstance(value, dict) or (isinstance(value, str) and value.startswith("{"))
    return key in BOOKKEEPING and isinstance(value, (str, int, float, type(None)))
