"""The service under systemd: its unit, and what it tells systemd of itself (the protocol of sd_notify(3))."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

SERVICE_USER = "edgekit"
WATCHDOG_SECONDS = 30

# What no unit of ours needs of the system, and when it starts.
CONFINED = """\
UMask=0027
ProtectSystem=strict
ReadWritePaths={folders}
ProtectHome=read-only
PrivateTmp=true
PrivateDevices=true
NoNewPrivileges=true
CapabilityBoundingSet=
ProtectKernelTunables=true
ProtectKernelModules=true
ProtectControlGroups=true
RestrictSUIDSGID=true
LockPersonality=true
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX

[Install]
WantedBy=multi-user.target
"""

UNIT = (
    """\
[Unit]
Description=edgekit runtime
After=network.target
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart={command}
User={user}
Restart=always
RestartSec=1
TimeoutStartSec=300
TimeoutStopSec={stop_seconds}
# The engine's process goes on until the answers are out.
KillMode=mixed
WatchdogSec={watchdog_seconds}
# Out of memory, the kernel ends the engine's process; the service starts another.
OOMPolicy=continue
LimitCORE=0
"""
    + CONFINED
)

AGENT_UNIT = (
    """\
[Unit]
Description=edgekit agent
Wants=network-online.target time-sync.target
After=network-online.target time-sync.target
StartLimitIntervalSec=0

[Service]
ExecStart={command}
User={user}
Restart=always
RestartSec=30
Nice=10
IOSchedulingClass=idle
"""
    + CONFINED
)


def unit(options: Sequence[str], *, writable: Sequence[Path], stop_seconds: int) -> str:
    """A unit that runs ``edgekit-runtime serve`` with these options.

    Args:
        options: as on the command line, paths absolute.
        writable: folders that the service writes to; the rest of the system is read-only for it.
        stop_seconds: time to end in after SIGTERM.
    """
    command = [sys.executable, "-m", "edgekit_runtime", "serve", *options]
    return UNIT.format(
        command=" ".join(map(_quoted, command)),
        user=SERVICE_USER,
        stop_seconds=stop_seconds,
        watchdog_seconds=WATCHDOG_SECONDS,
        folders=" ".join(_quoted(str(each)) for each in writable),
    )


def agent_unit(options: Sequence[str], *, store: Path) -> str:
    """A unit that runs ``edgekit-runtime agent`` with these options, as on the command line, paths absolute."""
    command = [sys.executable, "-m", "edgekit_runtime", "agent", *options]
    return AGENT_UNIT.format(command=" ".join(map(_quoted, command)), user=SERVICE_USER, folders=_quoted(str(store)))


def _quoted(word: str) -> str:
    """One word as systemd reads it: ``%`` and ``$`` stand for themselves (systemd.service(5), "Command lines")."""
    word = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{word}"' if not word or any(each.isspace() or each in "\\\"';" for each in word) else word


def notify(state: str) -> None:
    """Tell systemd, where it started us; nothing otherwise."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
            speaker.sendto(state.encode(), address.replace("@", "\0", 1) if address.startswith("@") else address)


async def tell_alive() -> None:
    """Tell systemd's watchdog, for ever, that the event loop turns; ends at once where nobody watches."""
    interval = int(os.environ.get("WATCHDOG_USEC", 0)) / 1e6
    if os.environ.get("WATCHDOG_PID") not in (None, str(os.getpid())):
        return
    while interval:
        notify("WATCHDOG=1")
        await asyncio.sleep(interval / 3)
