"""The frame that both command lines stand in: options that every command has, errors, exit codes."""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from edgekit_runtime.errors import EdgekitError, InputError, UsageError

# What the system refuses is no defect of ours: errno, what it means, how to mend it.
_FULL = ("the disk is full", "free some space and run the same command again")
_FORBIDDEN = ("this user may not do that", "run the command as the owner of the file, or change its permissions")
_SYSTEM = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EROFS: ("the disk is read-only", "mount it for writing, or choose another folder"),
    errno.EIO: ("the disk fails", "see what the system's log says of it, and replace it"),
}
INTERRUPTED = 128 + signal.SIGINT
DEFECT = 1
LEAST_MIB = 100 * 1024  # smaller sizes would be 0.0 or 0.1 of one

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
            return _report(error)
        except SystemExit as done:  # --help and --version
            return int(done.code or 0)
        _start_logging(parsed.debug)
        try:
            parsed.run(parsed)
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
            if parsed.debug:
                traceback.print_exc()
            return _report(error)
        return 0


def what_to_run(arguments: argparse.Namespace) -> Path:
    """The ``bundle`` or the ``--store`` of a command's arguments; raises UsageError for none or both."""
    if (arguments.bundle is None) == (arguments.store is None):
        raise UsageError("there has to be one thing to run", "give a bundle, or --store DIR")
    subject: Path = arguments.bundle or arguments.store
    return subject


def print_json(document: Any) -> None:
    """Print the one JSON document of a command."""
    print(json.dumps(document, indent=2, ensure_ascii=False))


def size_text(size: int) -> str:
    """Bytes as a column of sizes shows them: ``    87.5 MiB``, ``     3.2 KiB``."""
    return f"{size / 1024**2:8.1f} MiB" if size >= LEAST_MIB else f"{size / 1024:8.1f} KiB"


class _Parser(argparse.ArgumentParser):
    """argparse with our one-line errors."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, f"see `{self.prog} --help`")


def _report(error: Exception) -> int:
    if isinstance(error, OSError) and error.errno in _SYSTEM:
        problem, mend = _SYSTEM[error.errno]
        error = InputError(f"{problem} ({error.filename})" if error.filename else problem, mend)
    if isinstance(error, EdgekitError):
        print(f"error: {_one_line(str(error))}", file=sys.stderr)
        return error.exit_code
    name = type(error).__name__
    print(
        f"error: {name}: {_one_line(str(error))}: this is a defect; run again with --debug and report it",
        file=sys.stderr,
    )
    return DEFECT


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _start_logging(debug: bool) -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s", force=True)
    if not debug:
        warnings.simplefilter("ignore")  # libraries' notes to developers
    logging.getLogger("bitsandbytes").setLevel(logging.DEBUG if debug else logging.ERROR)
    for name in ("edgekit", "edgekit_exporters", "edgekit_runtime"):
        logging.getLogger(name).setLevel(logging.DEBUG if debug else logging.INFO)
