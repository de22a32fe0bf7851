"""The errors of this package: what is wrong, and how to mend it where that is known."""

from __future__ import annotations


class DevicesError(Exception):
    """Root of the errors that edgekit_devices raises on purpose; it reads ``problem: hint``."""

    def __init__(self, problem: str, hint: str | None = None) -> None:
        """Join ``problem`` and ``hint`` to one line."""
        self.problem, self.hint = problem, hint
        super().__init__(problem if hint is None else f"{problem}: {hint}")


class BadProfileError(DevicesError):
    """A profile file is malformed; the problem says where."""


class UnknownDeviceError(DevicesError):
    """No profile goes by that name; how to mend it says which there are."""


class MissingToolsError(DevicesError):
    """What is needed to build isn't here; how to mend it says how to get it."""


class BuildFailedError(DevicesError):
    """The compiler or linker refused; the problem has its last words."""


class WheelhouseError(DevicesError):
    """The wheels can't be had or don't fit; the problem says which."""
