"""Devices over OpenSSH: one connection for many commands, uploads that go on where they were cut off.

The user's own ssh does the talking, so that keys, agents, jump hosts and known hosts are those that `ssh` uses.
"""

from __future__ import annotations

import logging
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from edgekit_runtime.errors import TargetError, UsageError

log = logging.getLogger(__name__)

SCHEME = "ssh"
# As install.sh has it by default.
DEFAULT_FOLDER = 'if [ "$(id -u)" = 0 ]; then f=/opt/edgekit; else f=$HOME/.local/share/edgekit-device; fi'
LOST = 255  # ssh's own exit code; anything else comes from the device
PAUSES_S = (1, 3, 9)  # before a lost link is tried again
_OPTIONS = {"BatchMode": "yes", "ConnectTimeout": "10", "ServerAliveInterval": "5", "ServerAliveCountMax": "3"}
# What ssh says -> what is wrong, how to mend it.  These don't pass by themselves.
_REFUSALS = (
    ("Host key verification failed", "its host key is unknown or has changed", "connect once with ssh and compare it"),
    ("REMOTE HOST IDENTIFICATION HAS CHANGED", "its host key has changed", "find out why before you accept it"),
    ("Permission denied", "it refuses the login", "check user and key: ssh has to work without a password"),
    ("Could not resolve", "there is no such host", "check the name"),
    ("Bad owner or permissions", "ssh refuses its own configuration", "run ssh to see which file"),
)
# These may.
_INTERRUPTIONS = (
    ("Connection refused", "nothing listens there", "check host and port, and that sshd runs"),
    ("timed out", "it doesn't answer", "check host, port and network"),
)


@dataclass(frozen=True)
class Target:
    """``ssh://[user@]host[:port][/path]``: where a device is, and where on it edgekit lives.

    Attributes:
        text: as the user wrote it.
        path: absolute; None for the place that the installer takes by itself.
    """

    text: str
    host: str
    user: str | None
    port: int | None
    path: str | None

    def choose_folder(self) -> str:
        """A piece of sh that puts the device's folder into ``$f``."""
        return DEFAULT_FOLDER if self.path is None else f"f={shlex.quote(self.path)}"


class DeviceError(TargetError):
    """A command on a device failed there; ``output`` is all that it said."""

    def __init__(self, problem: str, hint: str, output: str = "") -> None:
        """Keep ``output`` beside the one-line message."""
        super().__init__(problem, hint)
        self.output = output


class LinkLost(TargetError):
    """The device can't be reached, or not any more."""

    def __init__(self, problem: str, hint: str, *, refused: bool) -> None:
        """``refused``: trying again is no use."""
        super().__init__(problem, hint)
        self.refused = refused


def parse_target(text: str) -> Target:
    """Read ``ssh://[user@]host[:port][/path]``.

    Raises:
        UsageError: it isn't of that form.
    """
    form = "write ssh://[user@]host[:port][/path]"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"{text} is no target ({error})", form) from None
    if parts.scheme != SCHEME or not parts.hostname or parts.hostname.startswith("-") or parts.query or parts.fragment:
        raise UsageError(f"{text} is no target", form)
    return Target(text, parts.hostname, parts.username, port, parts.path.rstrip("/") or None)


@contextmanager
def connect(target: Target, command: str = "ssh") -> Iterator[Device]:
    """A device, for as long as the block runs; the first command makes the connection.

    Args:
        target: where.
        command: the ssh to use, with options, ``ssh -i key`` say.
    """
    options = [word for name, value in _OPTIONS.items() for word in ("-o", f"{name}={value}")]
    with tempfile.TemporaryDirectory(prefix="edgekit-ssh-") as folder:
        if sys.platform != "win32":  # its OpenSSH can't share a connection
            options += ["-o", "ControlMaster=auto", "-o", f"ControlPath={folder}/c", "-o", "ControlPersist=60"]
        words = [*shlex.split(command), *options]
        try:
            yield Device(target, [*words, *_destination(target)])
        finally:
            subprocess.run([*words, "-O", "exit", *_destination(target)], capture_output=True, check=False)


class Device:
    """A device that commands can be run on; made by :func:`connect`."""

    def __init__(self, target: Target, command: Sequence[str]) -> None:
        self.target = target
        self.sent = 0  # bytes uploaded
        self._command = list(command)

    def run(self, script: str) -> str:
        """Run a POSIX sh script there and return its output; when the link breaks it runs again, and has to bear that.

        Raises:
            LinkLost: the device can't be reached.
            DeviceError: the script failed.
        """
        return self._persistently(lambda: self._once("sh -s", script.encode()))

    def upload(self, file: Path, digest: str, path: str) -> None:
        """Send a file.  What an earlier attempt has sent stays sent; the sha256 is checked there.

        Args:
            file: what to send.
            digest: its sha256.
            path: where it shall be on the device.

        Raises:
            LinkLost: the link broke and didn't come back.
            DeviceError: there is no room, or it arrived damaged.
        """
        part, final = shlex.quote(f"{path}.part"), shlex.quote(path)
        size = file.stat().st_size

        def attempt() -> str:
            have = min(size, int(self._once(f"cat {part} 2>/dev/null | wc -c")))
            with file.open("rb", buffering=0) as stream:
                stream.seek(have)
                self._once(f"cat >> {part}", stream)
            self.sent += size - have
            whole = f'[ "$(sha256sum < {part})" = "{digest}  -" ]'
            return self._once(f"if {whole}; then mv {part} {final}; else rm {part}; echo damaged >&2; exit 1; fi")

        self._persistently(attempt)

    def _persistently(self, action: Callable[[], str]) -> str:
        for pause in PAUSES_S:
            try:
                return action()
            except LinkLost as lost:
                if lost.refused:
                    raise
                log.debug("%s; again in %d s", lost.problem, pause)
                time.sleep(pause)
        return action()

    def _once(self, command: str, data: bytes | BinaryIO | FileIO = b"") -> str:
        with subprocess.Popen(
            [*self._command, command],
            stdin=subprocess.PIPE if isinstance(data, bytes) else data,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            output, errors = (
                text.decode("utf-8", "replace")
                for text in process.communicate(data if isinstance(data, bytes) else None)
            )
        log.debug("%s: %s\n%s%s", self.target.text, command, output, errors)
        if process.returncode == LOST:
            raise _lost(self.target, errors)
        if process.returncode:
            raise _failed(self.target, output, errors)
        return output


def _destination(target: Target) -> list[str]:
    port = [] if target.port is None else ["-p", str(target.port)]
    user = [] if target.user is None else ["-l", target.user]
    return [*port, *user, "--", target.host]


def _lost(target: Target, errors: str) -> LinkLost:
    for refused, reasons in ((True, _REFUSALS), (False, _INTERRUPTIONS)):
        for said, problem, hint in reasons:
            if said in errors:
                return LinkLost(f"{target.text}: {problem}", hint, refused=refused)
    last = errors.strip().splitlines()[-1:] or ["the link broke"]
    return LinkLost(f"{target.text}: {last[0]}", "check the network and run the same command again", refused=False)


def _failed(target: Target, output: str, errors: str) -> DeviceError:
    said = errors + output
    if "No space left on device" in said or "the disk is full" in said:
        return DeviceError(f"{target.text}: its disk is full", "free some space there and run this again", said)
    last = (errors.strip() or output.strip()).splitlines()[-1:] or ["a command failed and gave no reason"]
    problem, _, hint = last[0].removeprefix("error: ").rpartition(": ")
    return DeviceError(f"{target.text}: {problem or hint}", hint if problem else "run again with --debug", said)
