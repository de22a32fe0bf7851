"""The project file, edgekit.yaml: read, checked, and every error with its line."""

from __future__ import annotations

import json
import math
import re
from dataclasses import MISSING, Field, fields, replace
from pathlib import Path
from typing import Any

from edgekit.data.shapes import ROW_KEYS
from edgekit.data.source import HUB_PREFIX, DataSource, is_hub_name, means_hub
from edgekit.project.model import PROJECT_FILE, TARGET_WORDS, Adapter, DataFiles, Export, Gate, Generation, Project
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.manifest import NAME_PATTERN
from edgekit_runtime.hints import did_you_mean
from edgekit_runtime.runtime import BASE


def load_project(where: Path | str = ".") -> Project:
    """Read edgekit.yaml of a folder (or the file itself).

    Raises:
        InputError: missing, no YAML, an unknown key or a value that can't be right; the message names file, line, key.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    path = Path(where)
    if not path.exists():
        raise InputError(f"there is no folder {path}", "name a project's folder")
    path = path / PROJECT_FILE if path.is_dir() else path
    try:
        document = YAML(typ="rt").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"there is no {PROJECT_FILE} in {path.parent.resolve()}",
            "go to a project's folder, or run `edgekit init DIR`",
        ) from None
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        problem = " ".join(str(error.problem or error.context or "not YAML").split())
        raise InputError(f"{path}:{line}: {problem}", "correct the YAML there") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} can't be read ({error})", "check that it is a text file") from None
    except (YAMLError, ValueError, RecursionError) as error:  # signs and values that YAML's reader gives no line for
        problem = " ".join(str(error).split())
        raise InputError(f"{path} is not YAML ({problem})", "correct that; text goes in quotes") from None
    reader = _Reader(path)
    project: Project = reader.record(Project, document, "", folder=path.parent.resolve())
    if not project.adapters:
        raise reader.error(document, "adapters", "there is none", "describe at least one adapter")
    return project


class _Reader:
    """Fills the dataclasses above from YAML, checking each value against its field."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def record(self, kind: type[Any], node: Any, place: str, **known: Any) -> Any:
        if not isinstance(node, dict):
            raise InputError(
                f"{self.path}: {place.removesuffix('.') or 'it'} has to be a mapping of keys to values",
                "see docs/formats.md",
            )
        allowed = {each.name: each for each in fields(kind) if each.name not in known}
        for key in node:
            if key not in allowed:
                raise self.error(node, key, "unknown key", did_you_mean(key, allowed, "the keys here are"), place)
        values = {key: self.value(allowed[key], node, place) for key in node}
        for name, each in allowed.items():
            if name not in values and each.default is MISSING and each.default_factory is MISSING:
                raise InputError(f"{self.path}: {place}{name} is missing", "add it")
        return kind(**known, **values)

    def value(self, each: Field[Any], node: Any, place: str) -> Any:
        key, value, kind = each.name, node[each.name], str(each.type)
        if value is None and ("None" in kind or each.default_factory is not MISSING):
            return None if each.default_factory is MISSING else each.default_factory()
        if kind.startswith("DataFiles"):
            return self.data(node, key, place)
        if kind == "DataSource":
            return self.source(node, key, place)
        if kind in _RECORDS:
            return self.record(_RECORDS[kind], value, f"{place}{key}.")
        if kind == "Mapping[str, Adapter]":
            return self.adapters(node, key)
        if kind in ("Mapping[str, str]", "Mapping[str, int]"):
            if not isinstance(value, dict):
                example = "prompt: question" if key == "columns" else "down_proj: …"
                raise self.error(node, key, "it has to be a mapping", f"{key}: {{{example}}}", place)
            item = kind[-4:-1]
            return {str(name): self.plain(value, name, item, f"{place}{key}.") for name in value}
        if kind == "bool":
            if not isinstance(value, bool):
                raise self.error(node, key, f"{value!r} is not true or false", "write true or false", place)
            return value
        if kind.startswith("Path"):
            return self.path_in(node, key, self.plain(node, key, "str", place), place)
        if kind.startswith("dict"):
            return self.json_schema(node, key, place)
        if kind == "tuple[str, ...]":
            return self.words(node, key, place)
        if "tuple" in kind:
            return self.targets(node, key, place)
        value = self.plain(node, key, kind.removesuffix(" | None"), place)
        self.check(each, node, value, place)
        return value

    def plain(self, node: Any, key: str, kind: str, place: str) -> Any:
        value = node[key]
        wanted, word = {"str": (str, "text"), "int": (int, "a whole number"), "float": (float, "a number")}[kind]
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise self.error(node, key, f"{value!r} is not {word}", "correct it", place)
        if isinstance(value, float) and not math.isfinite(value):
            raise self.error(node, key, f"{value!r} is no number to compare with", "write one, 0.5 say", place)
        return wanted(value)  # plain Python values instead of the YAML reader's own types

    def check(self, each: Field[Any], node: Any, value: Any, place: str) -> None:
        rule = each.metadata
        for bad, problem in (
            ("choices" in rule and value not in rule["choices"], did_you_mean(value, rule.get("choices", ()))),
            ("minimum" in rule and not value >= rule["minimum"], f"use at least {rule.get('minimum')}"),
            ("above" in rule and not value > rule["above"], f"use more than {rule.get('above')}"),
            ("maximum" in rule and not value <= rule["maximum"], f"use at most {rule.get('maximum')}"),
            (
                "pattern" in rule and not re.fullmatch(rule["pattern"], str(value)),
                "use up to 64 letters, digits, . _ and -",
            ),
        ):
            if bad:
                raise self.error(node, each.name, f"{value!r} is not possible", problem, place)

    def adapters(self, node: Any, key: str) -> dict[str, Adapter]:
        entries = node[key]
        if not isinstance(entries, dict):
            raise self.error(node, key, "it has to name adapters", "adapters: {inspection: {rank: 16}}")
        result: dict[str, Adapter] = {}
        for name in entries:
            if not isinstance(name, str) or not re.fullmatch(NAME_PATTERN, name) or name == BASE:
                raise self.error(
                    entries, name, f"{name!r} is no adapter name", f"use a-z, 0-9, . _ - and not {BASE!r}", "adapters."
                )
            adapter = self.record(Adapter, entries[name] or {}, f"adapters.{name}.", name=name)
            if adapter.invocation is not None and adapter.method != "alora":
                place = f"adapters.{name}."
                raise self.error(entries[name], "invocation", "only an activated LoRA has one", "method: alora", place)
            result[name] = adapter
        return result

    def data(self, node: Any, key: str, place: str) -> DataFiles:
        files: DataFiles = self.record(DataFiles, node[key], f"{place}{key}.")
        for name, column in files.columns.items():
            entry, inside = node[key]["columns"], f"{place}{key}.columns."
            if name not in ROW_KEYS:
                raise self.error(entry, name, "no row has this key", did_you_mean(name, ROW_KEYS), inside)
            if column in files.ignore:
                raise self.error(entry, name, f"the column {column!r} is ignored too", "drop it from ignore", inside)
            if list(files.columns.values()).count(column) > 1:
                raise self.error(entry, name, f"{column!r} would stand for two keys", "keep one", inside)
        train, evaluation = (
            replace(each, ignore=files.ignore, columns=files.columns) for each in (files.train, files.eval)
        )
        return replace(files, train=train, eval=evaluation)

    def source(self, node: Any, key: str, place: str) -> DataSource:
        """A path, ``hub:owner/name``, ``owner/name`` that is no path, or a mapping with more of them."""
        value = node[key]
        if isinstance(value, dict):
            found: DataSource = self.record(DataSource, value, f"{place}{key}.", part=key, ignore=(), columns={})
        else:
            text = self.plain(node, key, "str", place)
            if text.startswith(HUB_PREFIX) or means_hub(text, self.path.parent):
                found = DataSource(hub=text, part=key)
            else:
                found = DataSource(path=self.path_in(node, key, text, place), part=key)
        if found.hub is not None:
            found = replace(found, hub=found.hub.removeprefix(HUB_PREFIX))
            if not is_hub_name(found.hub or ""):
                raise self.error(node, key, f"{found.hub!r} is no data set of the hub", "write hub:owner/name", place)
        if (found.path is None) == (found.hub is None):
            raise self.error(node, key, "it names no data, or two", "give either path or hub", place)
        if found.path is not None and found.revision is not None:
            raise self.error(node, key, "only a data set of the hub has a revision", "remove revision", place)
        return found

    def words(self, node: Any, key: str, place: str) -> tuple[str, ...]:
        value = node[key]
        several = value if isinstance(value, list) else [value]
        if not all(isinstance(item, str) for item in several):
            raise self.error(node, key, f"{value!r} is no list of names", f"{key}: [id, source]", place)
        return tuple(map(str, several))

    def targets(self, node: Any, key: str, place: str) -> str | tuple[str, ...]:
        value = node[key]
        if isinstance(value, str) and value:
            return str(value)
        if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
            return tuple(map(str, value))
        words = " or ".join(TARGET_WORDS)
        raise self.error(node, key, f"{value!r} names no layers", f"use {words}, a regular expression or a list", place)

    def json_schema(self, node: Any, key: str, place: str) -> dict[str, Any]:
        value = node[key]
        if isinstance(value, str):
            path = self.path_in(node, key, value, place)
            try:
                value = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise self.error(
                    node, key, f"{path} is no readable JSON ({error})", "correct the file", place
                ) from None
        if not isinstance(value, dict):
            raise self.error(node, key, "it has to be a JSON schema", "give the schema, or a path to one", place)
        plain: dict[str, Any] = json.loads(json.dumps(value))
        return plain

    def path_in(self, node: Any, key: str, text: str, place: str) -> Path:
        if not text.strip():  # would be the project's folder
            raise self.error(node, key, "it is empty", "name a file or folder, or take it out", place)
        try:
            return (self.path.parent / Path(text).expanduser()).resolve()
        except (OSError, RuntimeError, ValueError) as error:  # ~nobody, a NUL, a ring of links
            raise self.error(node, key, f"{text!r} is no path ({error})", "correct it", place) from None

    def error(self, node: Any, key: Any, problem: str, mend: str, place: str = "") -> InputError:
        try:
            line = node.lc.key(key)[0] + 1
        except (AttributeError, KeyError, TypeError):
            line = 1
        return InputError(f"{self.path}:{line}: {place}{key}: {problem}", mend)


_RECORDS: dict[str, type[Any]] = {
    "Generation": Generation,
    "Export": Export,
    "Gate": Gate,
}
