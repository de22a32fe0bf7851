"""The frame that every command of the kit stands in: --json, --debug, exit codes, errors of one line."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from edgekit.cli.help import HelpPage
from edgekit.cli.words import checked_words
from edgekit_runtime.cli.parser import carry_out, report
from edgekit_runtime.errors import EdgekitError, UsageError
from edgekit_runtime.hints import did_you_mean

Json = Annotated[bool, typer.Option("--json", help="print one JSON document on stdout")]
Debug = Annotated[bool, typer.Option("--debug", help="log everything, show tracebacks")]


@dataclass(frozen=True)
class Command:
    """A command: a function whose signature is its options, and examples of how to call it."""

    run: Callable[..., None]
    examples: tuple[str, ...]

    @property
    def name(self) -> str:
        """As it is typed."""
        return self.run.__name__.replace("_", "-")

    @property
    def summary(self) -> str:
        """What it does, in a sentence."""
        return " ".join(str(self.run.__doc__).partition("\n\n")[0].split())


@dataclass(frozen=True)
class CommandGroup:
    """Commands under one word: ``edgekit data check``, ``edgekit data split``."""

    name: str
    summary: str
    commands: tuple[Command, ...]


def command(*examples: str) -> Callable[[Callable[..., None]], Command]:
    """Make a function a command, which is called as the function is.

    The function's docstring is the help.  What it prints on stdout is the command's result.  --debug is added to
    its options.
    """
    return lambda run: Command(run, examples)


def program(name: str, description: str, groups: Mapping[str, Iterable[Command | CommandGroup]]) -> Program:
    """Put commands together to one program.

    Args:
        name: of the program, and of the distribution that says its version.
        description: one sentence.
        groups: the commands, under the headings of the help.
    """

    def tell_version(asked: bool) -> None:
        if asked:
            import importlib.metadata  # slow, as seen from --help

            print(f"{name} {importlib.metadata.version(name)}")
            raise typer.Exit

    show = typer.Option(False, "--version", is_eager=True, callback=tell_version, help="show the version and exit")

    def start(version: bool = show) -> None:
        pass  # a callback is how typer takes options of a program

    return _program(name, description, groups, start, completion=True)


def _program(
    name: str,
    description: str,
    groups: Mapping[str, Iterable[Command | CommandGroup]],
    start: Callable[..., None] = lambda: None,
    *,
    completion: bool = False,
) -> Program:
    app = typer.Typer(
        name=name,
        cls=Program,
        help=description,
        rich_markup_mode=None,
        add_completion=completion,
        subcommand_metavar="COMMAND ...",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(start)
    made = typer.main.get_command(app)
    assert isinstance(made, Program)
    made.headings = {heading: [each.name for each in commands] for heading, commands in groups.items()}
    made.known = {each.name: each for commands in groups.values() for each in commands}
    return made


def run_program(made: Program, words: Sequence[str]) -> int:
    """Run a program with the words of a command line, and return the exit code."""
    try:
        code = made.main(list(words), prog_name=made.name, standalone_mode=False)
    except EdgekitError as error:
        return report(error)
    except typer.TyperException as error:
        return report(_as_ours(error))
    return code or 0


def _made(each: Command | CommandGroup) -> Any:
    if isinstance(each, CommandGroup):
        inner = _program(each.name, each.summary, {"Commands": each.commands})
        inner.epilog = "\n".join(command.examples[0] for command in each.commands)
        return inner
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    app.command(each.name, cls=_Command, epilog="\n".join(each.examples))(_framed(each.run))
    return typer.main.get_command(app)


def _framed(run: Callable[..., None]) -> Callable[..., int]:
    """The function with --debug, that returns an exit code."""

    @functools.wraps(run)
    def framed(*, debug: bool, **given: Any) -> int:
        return carry_out(lambda: run(**given), debug=debug)

    signature = inspect.signature(run, eval_str=True)
    added = inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Debug)
    framed.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), added]
    )
    return framed


def _as_ours(error: typer.TyperException) -> UsageError:
    """What typer finds wrong with the words, in our words."""
    context = getattr(error, "ctx", None)
    hint = "see `edgekit --help`" if context is None else f"see `{context.command_path} --help`"
    if not isinstance(error, typer.BadParameter) or error.param is None:
        message = error.format_message().rstrip(".")
        return UsageError(message[:1].lower() + message[1:], hint)
    named = error.param.opts[0] if error.param.param_type_name == "option" else error.param.display_name_raw
    if not error.message:  # typer says nothing more of what is missing
        return UsageError(f"the following arguments are required: {named}", hint)
    return UsageError(f"argument {named}: {error.message.rstrip('.')}", hint)


class _Command(HelpPage, TyperCommand):
    """One command: wrong words are told as all errors are."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:  # words are being completed
            return super().parse_args(ctx, args)
        ctx.allow_extra_args = True
        rest = super().parse_args(ctx, checked_words(args, self.get_params(ctx), ctx.command_path))
        if rest:
            raise UsageError(f"{rest[0]!r} is one argument too many", f"see `{ctx.command_path} --help`")
        return rest


class Program(HelpPage, TyperGroup):
    """The commands in groups.  A command's options are read from its signature when it is asked for."""

    headings: Mapping[str, Sequence[str]]
    known: Mapping[str, Command | CommandGroup]

    def list_commands(self, ctx: Any) -> list[str]:
        """Names, in the order of the help."""
        return list(self.known)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command as typer has it; None when there is none of that name."""
        if cmd_name not in self.known:
            return None
        if cmd_name not in self.commands:
            self.commands[cmd_name] = _made(self.known[cmd_name])
        return self.commands[cmd_name]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Wrong words before the command are told as all errors are."""
        if not ctx.resilient_parsing:
            args = checked_words(args or ["--help"], self.get_params(ctx), ctx.command_path, before_command=True)
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the words begin with."""
        if args[0] not in self.known and not ctx.resilient_parsing:
            raise UsageError(f"there is no command {args[0]!r}", did_you_mean(args[0], self.known))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Each with what it does."""
        width = max(map(len, self.known))
        for heading, names in self.headings.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(width), self.known[name].summary) for name in names])
