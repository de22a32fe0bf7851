"""What --help shows: plain text of at most 80 columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Row = tuple[str, str]


class HelpPage:
    """Mixed into typer's commands: usage, arguments, options and examples, as we write them."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The words after the command's name."""
        return list(usage_pieces(self, ctx))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """A program's commands, or arguments, and options, with what they mean."""
        if hasattr(self, "format_commands"):
            self.format_commands(ctx, formatter)
        for heading, rows in (("Arguments", argument_rows(self, ctx)), ("Options", option_rows(self, ctx))):
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Examples, each on a line of its own however long it is, so that it can be copied."""
        lines = examples(self)
        if lines:
            with formatter.section("Example" if len(lines) == 1 else "Examples"):
                for line in lines:
                    formatter.write(f"  {line}\n")


def usage_pieces(command: Any, ctx: Any) -> Iterator[str]:
    """What stands after the command's name: required options, arguments, and a group's commands."""
    yield "[OPTIONS]"
    for param in command.get_params(ctx):
        if param.param_type_name == "option" and param.required:
            yield f"{param.opts[0]} {param.metavar}"
    for param in command.get_params(ctx):
        if param.param_type_name == "argument":
            name = param.metavar if param.required else f"[{param.metavar}]"
            yield name if param.nargs == 1 else f"{name}..."
    if hasattr(command, "subcommand_metavar"):
        yield command.subcommand_metavar


def argument_rows(command: Any, ctx: Any) -> list[Row]:
    """Each argument, and what it means."""
    return [(each.metavar, each.help or "") for each in command.get_params(ctx) if each.param_type_name == "argument"]


def option_rows(command: Any, ctx: Any) -> list[Row]:
    """Each option with its value, and what it means."""
    rows = []
    for each in command.get_params(ctx):
        if each.param_type_name == "option":
            spelt = ", ".join(sorted(each.opts, key=len))  # typer has no order
            rows.append((spelt if each.is_flag else f"{spelt} {each.metavar}", each.help or ""))
    return rows


def examples(command: Any) -> list[str]:
    """How the command is called."""
    return (command.epilog or "").splitlines()
