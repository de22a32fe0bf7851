"""Settings of an adapter for one training, checked as those of the file are: ``edgekit train --set rank=8``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from edgekit.project.fields import FOLDER, UNKNOWN_KEY, refused_at
from edgekit.project.mistakes import setting_mistake
from edgekit.project.model import Adapter, Project
from edgekit.project.schema import keys_at
from edgekit_runtime.errors import UsageError

_ADAPTER = TypeAdapter(Adapter)
_DATA = "data"


def read_settings(words: Sequence[str]) -> dict[str, Any]:
    """``KEY=VALUE`` as a command line has it, values as YAML reads them: ``{"rank": 8}`` of ``rank=8``.

    Raises:
        UsageError: no key, a key twice, or a value that is no YAML.
    """
    settings: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not key or not equals:
            raise UsageError(f"--set {word}: it is no KEY=VALUE", "write --set rank=8, say")
        if key in settings:
            raise UsageError(f"--set {key} is given twice", "give it once")
        try:
            settings[key] = YAML(typ="safe").load(text)
        except (YAMLError, ValueError, RecursionError) as error:
            problem = str(error).splitlines()[0]
            raise UsageError(f"--set {word}: the value is not YAML ({problem})", "put text in quotes") from None
    return settings


def with_settings(project: Project, names: Sequence[str], settings: Mapping[str, Any]) -> Project:
    """The project with other settings of some adapters.

    Args:
        project: a loaded project file.
        names: adapters to change.
        settings: key of an adapter -> value as the file would have it; dots lead into what a key holds
            (``generation.max_tokens``).  Paths are relative to the project's folder.

    Raises:
        UsageError: a key that no adapter has, or a value that the file couldn't have; in the file's words.
        InputError: no such adapter.
    """
    if not settings:
        return project
    changed = {name: _changed(project, project.adapter(name), settings) for name in names}
    return replace(project, adapters={**project.adapters, **changed})


def _changed(project: Project, adapter: Adapter, settings: Mapping[str, Any]) -> Adapter:
    fields: dict[str, Any] = dict(vars(adapter))
    try:
        for dotted, value in settings.items():
            first, *inside = dotted.split(".", 1)
            if first not in keys_at(("adapters", adapter.name)):
                raise refused_at((first,), UNKNOWN_KEY, value)
            if first == _DATA and fields[_DATA] is None:
                fields[_DATA] = project.data
            old = fields[first]
            fields[first] = _put(old, ("adapters", adapter.name, first), inside[0], value) if inside else value
        return _ADAPTER.validate_python(fields, context={FOLDER: project.folder})
    except ValidationError as error:
        mistake = setting_mistake(adapter.name, error)
        raise UsageError(f"--set {mistake.problem}", mistake.hint) from None


def _put(record: Any, place: tuple[str, ...], dotted: str, value: Any) -> dict[str, Any]:
    """``record`` as a mapping, with ``value`` at a key inside it.

    Where any key may be, as in ``rank_pattern``, dots are part of it.
    """
    known = keys_at(place)
    if dataclasses.is_dataclass(record):
        record = {key: found for key in known if (found := getattr(record, key)) is not None}
    entries = dict(record) if isinstance(record, Mapping) else {}
    key, *inside = dotted.split(".", 1) if known else [dotted]
    entries[key] = _put(entries.get(key), (*place, key), inside[0], value) if inside else value
    return entries
