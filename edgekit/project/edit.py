"""Changes of edgekit.yaml that keep its comments and the order of its keys."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.util import load_yaml_guess_indent

from edgekit.project.loader import load_project
from edgekit.project.model import PROJECT_FILE, Project
from edgekit_runtime.errors import InputError
from edgekit_runtime.files.atomic import write_whole


def edit_adapter(
    folder: Path,
    name: str,
    change: Callable[[Any, int], None],
    is_right: Callable[[Project], bool],
    *,
    without: Callable[[str], str] = lambda text: text,
) -> None:
    """Change the entry of an adapter in the project file, which gets one where it has none.

    Args:
        folder: of the project.
        name: of the adapter.
        change: gets the entry, a mapping of ruamel.yaml, and the file's indent.
        is_right: whether the project says then what it has to.
        without: takes out of the file's text what an earlier change left there.

    Raises:
        InputError: the file can't be written, or would not say what it has to; it stays as it was then.
    """
    path = folder / PROJECT_FILE
    text = path.read_text(encoding="utf-8")
    before = without(text)
    _, found, block_indent = load_yaml_guess_indent(before)
    indent = found or 2
    yaml = YAML(typ="rt")
    yaml.preserve_quotes, yaml.width = True, 4096
    document = yaml.load(before)
    yaml.indent(mapping=indent, sequence=indent, offset=block_indent or 0)
    adapters = document["adapters"]
    if adapters.get(name) is None:
        adapters[name] = CommentedMap()
    adapters[name].fa.set_block_style()
    adapters.fa.set_block_style()
    change(adapters[name], indent)
    out = io.StringIO()
    yaml.dump(document, out)
    write_whole(path, out.getvalue().encode())
    try:
        if not is_right(load_project(path)):
            raise InputError(f"{path} would not say what was found", "write it by hand")
    except InputError:
        write_whole(path, text.encode())
        raise
