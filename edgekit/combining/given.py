"""A combination that a command line gives: checked as edgekit.yaml is, and written there once it is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from edgekit.project import Adapter, Project
from edgekit.project.edit import edit_adapter
from edgekit.project.fields import AdapterName
from edgekit.project.mistakes import setting_mistake
from edgekit_runtime.errors import UsageError

_NAME, _ADAPTER = TypeAdapter(AdapterName), TypeAdapter(Adapter)
WRITTEN = ("combined", "seed", "system")


def read_parts(text: str) -> dict[str, float]:
    """``a=0.7,b=0.3`` as parts with weights; a part without one has weight 1.

    Raises:
        UsageError: no name, no number, or a part twice.
    """
    parts: dict[str, float] = {}
    for word in text.split(","):
        name, _, weight = word.strip().partition("=")
        try:
            value = float(weight or 1)
        except ValueError:
            raise UsageError(f"--from {word}: {weight!r} is no number", "write --from a=0.7,b=0.3") from None
        if not name or name in parts:
            problem = "a part has no name" if not name else f"{name} is named twice"
            raise UsageError(f"--from {text}: {problem}", "write --from a=0.7,b=0.3")
        parts[name] = value
    return parts


def with_combined(project: Project, name: str, settings: Mapping[str, Any], seed: int | None) -> Project:
    """The project with an adapter ``name`` that is made of others.

    Where all parts have one system prompt and the combination has none, it gets that.

    Args:
        project: a loaded project file.
        name: of the adapter, new or made of others already.
        settings: keys of ``combined:``, parts among them; None leaves one out.
        seed: of what the method draws; None leaves the adapter's.

    Raises:
        UsageError: a name that is taken, or settings that the file couldn't have.
    """
    known = project.adapters.get(name)
    if known is not None and known.combined is None:
        raise UsageError(f"adapter {name} is not made of others", "choose another name")
    fields: dict[str, Any] = {"name": name} if known is None else dict(vars(known))
    fields["combined"] = {key: value for key, value in settings.items() if value is not None}
    if seed is not None:
        fields["seed"] = seed
    systems = {each.system for part in settings["parts"] if (each := project.adapters.get(part)) is not None}
    if fields.get("system") is None and len(systems) == 1:
        fields["system"] = systems.pop()
    try:
        adapters = {**project.adapters, _NAME.validate_python(name): _ADAPTER.validate_python(fields)}
    except ValidationError as error:
        mistake = setting_mistake(name, error)
        raise UsageError(mistake.problem, mistake.hint) from None
    return replace(project, adapters=adapters)


def write_combined(project: Project, name: str) -> None:
    """Write the combination ``name`` into edgekit.yaml.

    Raises:
        InputError: the file can't be written; it stays as it was then.
    """
    adapter = project.adapter(name)
    assert adapter.combined is not None
    settings = adapter.combined.as_dict()
    values = {"combined": settings, "seed": adapter.seed or None, "system": adapter.system}

    def change(entry: Any, indent: int) -> None:
        for key, value in values.items():
            if value is None:
                entry.pop(key, None)
            else:
                entry[key] = value

    def is_right(written: Project) -> bool:
        found = written.adapter(name)
        return all(getattr(found, key) == getattr(adapter, key) for key in WRITTEN)

    edit_adapter(project.folder, name, change, is_right)
