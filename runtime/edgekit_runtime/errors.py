"""The exception tree, shared by the kit and the device.

::

    EdgekitError            exit 1   a defect of ours, when raised bare
    ├── UsageError          exit 2   the command was called wrongly
    ├── InputError          exit 3   data, project file, bundle, adapter or signature is bad
    │   ├── ContextExceeded          a request needs more tokens than the context has
    │   └── NobodyAnswers            a request for ``auto`` is for none of the adapters
    ├── GateRefused         exit 4   the quality gate refused to ship
    └── TargetError         exit 5   a target could not be reached, or failed

Every message reads ``what is wrong: how to mend it``; the command line prints it after ``error: ``.
"""

from __future__ import annotations

SHOWN = 60  # signs of what somebody else has named, in an error
MAX_LINE = 4000


class EdgekitError(Exception):
    """Root of every error that edgekit raises on purpose."""

    exit_code = 1

    def __init__(self, problem: str, hint: str | None = None) -> None:
        """Join ``problem`` and ``hint`` to the one line that a user sees."""
        self.problem = problem
        self.hint = hint
        super().__init__(problem if hint is None else f"{problem}: {hint}")


class UsageError(EdgekitError):
    """The command line or a function's arguments make no sense together."""

    exit_code = 2


class InputError(EdgekitError):
    """A file or value handed to edgekit is missing, malformed or does not fit."""

    exit_code = 3


class NoRoom(InputError):
    """A disk lacks the room for what comes: refused before anything is written, and it may have it later."""


class ContextExceeded(InputError):
    """A prompt and the answer that is asked for have more tokens than the context."""


class NobodyAnswers(InputError):
    """A request for ``auto`` is for none of the adapters, and the bundle has no fallback."""


class GateRefused(EdgekitError):
    """The exported files answer worse than the trained model, or are not good enough, and nobody accepted that."""

    exit_code = 4


class TargetError(EdgekitError):
    """A device or service could not be reached, or failed on its side."""

    exit_code = 5


def one_line(text: str) -> str:
    """A text as one line that a terminal and a log can have: control signs written out, and not without end.

    Names come from files that anybody may have made.
    """
    if len(text) > MAX_LINE:
        text = f"{text[:MAX_LINE]}…"
    text = " ".join(text.splitlines())
    return text if text.isprintable() else "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def shown(name: str) -> str:
    """What somebody else has named something, in quotes, for an error."""
    return ascii(name if len(name) <= SHOWN else name[:SHOWN] + "...")
