"""The project file, edgekit.yaml: read, and checked by the models with every error at its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.scalarbool import ScalarBoolean

from edgekit.project.fields import FOLDER, with_given
from edgekit.project.mistakes import first_mistake
from edgekit.project.model import PROJECT_FILE, Project
from edgekit_runtime.errors import InputError

_PROJECT = TypeAdapter(Project)


def load_project(where: Path | str = ".") -> Project:
    """Read edgekit.yaml of a folder (or the file itself).

    Raises:
        InputError: missing, no YAML, an unknown key or a value that can't be right; the message names file, line, key.
    """
    path = Path(where)
    if not path.exists():
        raise InputError(f"there is no folder {path}", "name a project's folder")
    path = path / PROJECT_FILE if path.is_dir() else path
    try:
        text = path.read_text(encoding="utf-8")
        document = YAML(typ="rt").load(text)
    except FileNotFoundError:
        raise InputError(
            f"there is no {PROJECT_FILE} in {path.parent.resolve()}",
            "go to a project's folder, or run `edgekit init DIR`",
        ) from None
    except ReaderError as error:
        line = str(text.count("\n", 0, error.position) + 1)
        raise InputError(f"{path}:{line}: YAML allows no {chr(error.character)!r}", "take that sign out") from None
    except MarkedYAMLError as error:
        line = str(error.problem_mark.line + 1) if error.problem_mark else "?"
        problem = " ".join(str(error.problem or error.context or "not YAML").split())
        raise InputError(f"{path}:{line}: {problem}", "correct the YAML there") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} can't be read ({error})", "check that it is a text file") from None
    except (YAMLError, ValueError, RecursionError) as error:  # signs and values that YAML's reader gives no line for
        problem = " ".join(str(error).split())
        raise InputError(f"{path} is not YAML ({problem})", "correct that; text goes in quotes") from None
    try:
        return _PROJECT.validate_python(
            with_given(_plain(document, {}), folder=path.parent.resolve()), context={FOLDER: path.parent}
        )
    except ValidationError as error:
        raise first_mistake(path, document, error) from None


def _plain(node: Any, known: dict[int, Any]) -> Any:
    """Plain Python values instead of the YAML reader's own types, which are made to be written again.

    ``known`` has what was made of each mapping and list, by its id: what aliases repeat is made once.
    """
    if id(node) in known:
        return known[id(node)]
    if isinstance(node, dict):
        mapping: dict[Any, Any] = {}
        known[id(node)] = mapping
        mapping.update((_plain(key, known), _plain(value, known)) for key, value in node.items())
        return mapping
    if isinstance(node, list):
        several: list[Any] = []
        known[id(node)] = several
        several.extend(_plain(item, known) for item in node)
        return several
    if isinstance(node, ScalarBoolean):
        return bool(node)
    kind = next((each for each in (str, int, float) if isinstance(node, each) and not isinstance(node, bool)), None)
    return node if kind is None else kind(node)
