"""The frame that both command lines stand in: options that every command has, errors, exit codes."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import logging
import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from edgekit_runtime.errors import EdgekitError, UsageError, one_line
from edgekit_runtime.files.strict_json import strict_json
from edgekit_runtime.files.system_errors import explained
from edgekit_runtime.hints import did_you_mean, nearest
from edgekit_runtime.sigterm import handling_sigterm

INTERRUPTED = 128 + signal.SIGINT
DEFECT = 1
LEAST_MIB = 100 * 1024  # smaller sizes would be 0.0 or 0.1 of one

# Read by the kit's libraries when they are imported: their bars and notes would stand between ours.
QUIET = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"}

Run = Callable[[argparse.Namespace], None]


class Program:
    """A program with sub-commands.

    A command is a function that takes the parsed arguments; what it prints on stdout is its result.
    """

    def __init__(self, name: str, description: str, version: str) -> None:
        self._parser = _Parser(prog=name, description=description)
        self._parser.add_argument("--version", action="version", version=f"{name} {version}")
        self._commands = self._parser.add_subparsers(metavar="COMMAND", required=True, dest="command")
        self._frame = _Parser(add_help=False)
        self._frame.add_argument("--json", action="store_true", help="print one JSON document on stdout")
        self._frame.add_argument("--debug", action="store_true", help="log everything, show tracebacks")

    def command(self, name: str, help: str, example: str, run: Run) -> argparse.ArgumentParser:
        """Add a command and return its parser, to give it arguments."""
        parser: argparse.ArgumentParser = self._commands.add_parser(
            name,
            help=help,
            description=help[0].upper() + help[1:] + ("" if help.endswith("?") else "."),
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            parents=[self._frame],
        )
        parser.set_defaults(run=run)
        return parser

    def main(self, arguments: Sequence[str] | None = None) -> int:
        """Run the command and return its exit code."""
        try:
            parsed = self._parser.parse_args(arguments)
        except UsageError as error:
            return report(error)
        except SystemExit as done:  # --help and --version
            return int(done.code or 0)
        return carry_out(lambda: parsed.run(parsed), debug=parsed.debug)


def carry_out(run: Callable[[], None], *, debug: bool) -> int:
    """Do the work of a command: logs go to stderr, and an error is one line there.

    Args:
        run: the work; what it prints on stdout is its result.
        debug: log everything, and show tracebacks.

    Returns:
        The exit code.
    """
    _start_logging(debug)
    try:
        with _ending_on_sigterm():
            run()
        if sys.stdout is not None:  # closed by whoever runs us
            sys.stdout.flush()
    except KeyboardInterrupt as interrupt:
        print(f"stopped: {interrupt}" if str(interrupt) else "stopped", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain once more when it flushes at exit.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            traceback.print_exc()
        return report(error)
    return 0


@contextlib.contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """SIGTERM ends a command like an error does, so that what is half-written goes; a second one ends it at once."""

    def end(number: int, _: FrameType | None) -> NoReturn:
        signal.signal(number, signal.SIG_DFL)
        print("stopped", file=sys.stderr)
        raise SystemExit(128 + number)

    with handling_sigterm(end):
        yield


def what_to_run(arguments: argparse.Namespace) -> Path:
    """The ``bundle`` or the ``--store`` of a command's arguments; raises UsageError for none or both."""
    if (arguments.bundle is None) == (arguments.store is None):
        raise UsageError("there has to be one thing to run", "give a bundle, or --store DIR")
    subject: Path = arguments.bundle or arguments.store
    return subject


def print_json(document: Any) -> None:
    """Print the one JSON document of a command."""
    print(strict_json(document, indent=2))


def size_text(size: int) -> str:
    """Bytes as a column of sizes shows them: ``    87.5 MiB``, ``     3.2 KiB``."""
    return f"{size / 1024**2:8.1f} MiB" if size >= LEAST_MIB else f"{size / 1024:8.1f} KiB"


class _Parser(argparse.ArgumentParser):
    """argparse with our one-line errors, which name what a mistyped name may have meant."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, f"see `{self.prog} --help`")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """As argparse does, but an unknown option is told before what it leaves missing."""
        given = sys.argv[1:] if args is None else list(args)
        own = itertools.takewhile(lambda word: word.startswith("-"), given)  # what follows is a command's
        self._check_options(given if self._subparsers is None else list(own))
        parsed, rest = super().parse_known_args(given, namespace)
        if rest:
            self._check_options(rest)
            raise UsageError(f"{rest[0]!r} is one argument too many", f"see `{self.prog} --help`")
        return parsed, rest

    def _check_options(self, given: Sequence[str]) -> None:
        known = self._option_string_actions
        for each in given:
            name = each.partition("=")[0]
            if each == "--":
                return
            if name.startswith("--") and " " not in name and not any(option.startswith(name) for option in known):
                raise UsageError(f"{self.prog} has no option {name}", self._mend_option(name))

    def _mend_option(self, name: str) -> str:
        near = nearest(name, self._option_string_actions)
        if near is not None:
            return f"did you mean {near}?"
        after = "put options after the command; " if self._subparsers is not None else ""
        return f"{after}see `{self.prog} --help`"

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        what = action.option_strings[0] if action.option_strings else action.dest
        raise UsageError(f"there is no {what} {value!r}", did_you_mean(value, map(str, action.choices)))


def from_here(text: str) -> str:
    """A message with the paths in this folder as they would be typed here."""
    try:
        folder = str(Path.cwd())
    except OSError:  # it is gone
        return text
    if folder == os.sep:
        return text
    return re.sub(rf"(?<![^\s'\"(=`]){re.escape(folder + os.sep)}(?=[^\s/])", "", text)


def report(error: Exception) -> int:
    """Print an error as one line on stderr; returns the exit code that it stands for."""
    if not isinstance(error, EdgekitError):
        error = explained(error) or error
    if isinstance(error, EdgekitError):
        print(f"error: {one_line(from_here(str(error)))}", file=sys.stderr)
        return error.exit_code
    name = type(error).__name__
    print(
        f"error: {name}: {one_line(str(error))}: this is a defect; run again with --debug and report it",
        file=sys.stderr,
    )
    return DEFECT


class _Lines(logging.Formatter):
    """A record is one line, whatever names it has; what is for developers stays as it is."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        text = super().formatMessage(record)
        return text if record.levelno <= logging.DEBUG else one_line(from_here(text))


def _start_logging(debug: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines("%(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    if not debug:
        warnings.simplefilter("ignore")  # libraries' notes to developers
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
    logging.getLogger("bitsandbytes").setLevel(logging.DEBUG if debug else logging.ERROR)
    for name in ("edgekit", "edgekit_exporters", "edgekit_runtime"):
        logging.getLogger(name).setLevel(logging.DEBUG if debug else logging.INFO)
