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
    commands = {name: program.get_command(context, name) for name in program.known}
    contexts = {name: typer.Context(each, info_name=name, parent=context) for name, each in commands.items()}
    options = {name: option_rows(each, contexts[name]) for name, each in commands.items()}
    of_every = [row for row in next(iter(options.values())) if all(row in rows for rows in options.values())]
    parts = [HEAD, _rows(of_every), TAIL]
    for heading, names in program.headings.items():
        parts.append(f"\n## {heading}\n")
        for name in names:
            own = [row for row in options[name] if row not in of_every]
            parts.append("\n" + "\n".join(_command(commands[name], contexts[name], own)) + "\n")
    return "".join(parts)


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
