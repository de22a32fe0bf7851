"""The reference of all commands, docs/commands.md, from the commands themselves.

``make docs-commands`` writes it; a test compares.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from edgekit.cli.frame import Program
from edgekit.cli.help import Row, argument_rows, examples, option_rows, usage_pieces
from edgekit.cli.program import kit

HEAD = """# Commands

All commands of `edgekit`, as `edgekit COMMAND --help` tells them.  `make docs-commands` writes this page from the code.

Every command has these options:

| Option | |
|---|---|
"""
TAIL = """
Results are on stdout, progress and notes on stderr.  An error is one line on stderr:
`error: what is wrong: how to mend it`.

| Exit code | |
|---|---|
| 0 | done |
| 1 | a defect of edgekit |
| 2 | wrong usage |
| 3 | bad input: data, project file, bundle, adapter or signature |
| 4 | the gate refused |
| 5 | a target could not be reached, or failed |

`edgekit --install-completion` lets your shell complete commands, options, and names of devices and adapters.
"""


def reference(program: Program) -> str:
    """The page, in Markdown."""
    context = program.make_context(program.name, [], resilient_parsing=True)
    found = {name: list(_leaves(program, context, name)) for name in program.known}
    options = [option_rows(*each) for commands in found.values() for each in commands]
    of_every = [row for row in options[0] if all(row in rows for rows in options)]
    parts = [HEAD, _rows(of_every), TAIL]
    for heading, names in program.headings.items():
        parts.append(f"\n## {heading}\n")
        for command, inner in (each for name in names for each in found[name]):
            own = [row for row in option_rows(command, inner) if row not in of_every]
            parts.append("\n" + "\n".join(_command(command, inner, own)) + "\n")
    return "".join(parts)


def _leaves(program: Program, context: Any, name: str) -> Iterator[tuple[Any, typer.Context]]:
    """The command of this name, or those of the group, each with its context."""
    command = program.get_command(context, name)
    inner = typer.Context(command, info_name=name, parent=context)
    if not isinstance(command, Program):
        yield command, inner
        return
    for each in command.known:
        yield from _leaves(command, inner, each)


def _command(command: Any, context: typer.Context, options: list[Row]) -> Iterator[str]:
    yield f"### {context.command_path}\n"
    yield f"{command.help}\n"
    yield f"```text\n{context.command_path} {' '.join(usage_pieces(command, context))}\n```\n"
    for title, rows in (("Argument", argument_rows(command, context)), ("Option", options)):
        if rows:
            yield f"| {title} | |\n|---|---|\n{_rows(rows)}"
    lines = "\n".join(examples(command))
    yield f"```bash\n{lines}\n```"


def _rows(rows: list[Row]) -> str:
    return "".join(f"| `{_bars(name)}` | {_cell(text)} |\n" for name, text in rows)


def _bars(text: str) -> str:
    return text.replace("|", r"\|")


def _cell(text: str) -> str:
    return _bars(text).replace("[", r"\[")  # or [one][two] is a link


if __name__ == "__main__":
    print(reference(kit()), end="")
