"""A board without the board: a Debian of its architecture in a folder, its CPU in user-mode QEMU, no network.

What works there works on the board; how long it takes says nothing about the board.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from edgekit_devices import Profile
from edgekit_exporters.cache import cache_folder, cached
from edgekit_runtime.errors import TargetError, UsageError

SUITE = "bookworm"
ROOT_RECIPE = 1  # a new number makes cached roots old
PACKAGES = ("python3",)  # all that install.sh needs; Debian's smallest set has the rest
DEBIAN = {"aarch64": "arm64"}  # machine -> Debian's name for it
BINFMT = Path("/proc/sys/fs/binfmt_misc")
TOOLS = {
    "debootstrap": "debootstrap",
    "qemu-aarch64-static": "qemu-user-static",
    "unshare": "util-linux",
    "ip": "iproute2",
}
# In name spaces of its own, so that mounts and network are gone with the process.
_ENTER = """
set -eu
ip link set lo up
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
mount -t proc proc "$2/root/proc"
exec chroot "$2/root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 QEMU_CPU="$3" \
    timeout "$5" sh -eu -c "$4"
"""


class EmulatedBoard:
    """One board: a fresh system; what is changed on it lies in ``folder`` and is gone when that is."""

    def __init__(self, profile: Profile, folder: Path) -> None:
        """Prepare a board; the first one of an architecture takes minutes and network.

        Raises:
            UsageError: QEMU has no such CPU.
            TargetError: this machine can't emulate; the message says what it needs.
        """
        if not profile.qemu_cpu or profile.architecture not in DEBIAN:
            raise UsageError(
                f"{profile.name} can't be emulated", f"those of {' and '.join(DEBIAN)} with a qemu_cpu can"
            )
        self.profile, self._folder = profile, folder
        self._root = debian_root(profile.architecture)
        for name in ("upper", "work", "root"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def path(self, inside: str) -> Path:
        """Where a file of the board can be written from here, between two runs."""
        path = self._folder / "upper" / inside.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def run(self, script: str, *, cpu: str | None = None, timeout_s: int = 1800) -> str:
        """Run a sh script on the board, as root, with nothing but a loopback network; returns its output.

        Args:
            script: for ``sh -eu``.
            cpu: another CPU model of QEMU than the profile's.
            timeout_s: it is ended after that long.

        Raises:
            TargetError: it failed.
        """
        model = cpu or self.profile.qemu_cpu
        arguments = [str(self._root), str(self._folder), model, script, str(timeout_s)]
        done = subprocess.run(
            ["unshare", "--mount", "--net", "sh", "-c", _ENTER, "sh", *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            last = " | ".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-3:])
            raise TargetError(f"emulated {self.profile.name} ({model}): {last}", f"exit code {done.returncode}")
        return done.stdout


def debian_root(architecture: str) -> Path:
    """Debian's smallest system with python3 for an architecture, from the cache after the first time.

    Raises:
        TargetError: it can't be had here.
    """
    reason = why_not()
    if reason is not None:
        raise TargetError(*reason)

    def make(folder: Path) -> None:
        command = [
            *("debootstrap", f"--arch={DEBIAN[architecture]}", "--variant=minbase"),
            *(f"--include={','.join(PACKAGES)}", SUITE, str(folder)),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stdout.strip().splitlines() or ["no reason given"])[-1]
            raise TargetError(f"debootstrap failed ({last})", "connect to a Debian mirror once")

    return cached(cache_folder("roots") / f"{SUITE}-{architecture}-{ROOT_RECIPE}", make)


def why_not() -> tuple[str, str] | None:
    """Why this machine can't emulate a board and what would change that, or None when it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "emulating a board needs Linux and root (name spaces, chroot)", "run it as root, in a container say"
    missing = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} not installed", f"apt install {' '.join(missing)} binfmt-support"
    if not _have_binfmt():
        return "the kernel doesn't start programs of other CPUs (binfmt_misc)", "update-binfmts --enable qemu-aarch64"
    if subprocess.run(["unshare", "--mount", "--net", "true"], capture_output=True, check=False).returncode:
        return "this sandbox makes no name spaces", "run it where unshare --mount --net works"
    return None


def _have_binfmt() -> bool:
    steps: Sequence[str] = (
        f"mount -t binfmt_misc binfmt_misc {shlex.quote(str(BINFMT))}",
        "update-binfmts --enable qemu-aarch64",
    )
    for step in steps:
        if (BINFMT / "qemu-aarch64").exists():
            return True
        subprocess.run(["sh", "-c", step], capture_output=True, check=False)
    return (BINFMT / "qemu-aarch64").exists()
