"""From a bundle here to devices that answer."""

from __future__ import annotations

import logging
import shlex
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from edgekit.targets.devices import probe
from edgekit.targets.offline_kit import BUNDLE_FOLDER, INSTALLER, KitFile, kit_files
from edgekit.targets.runtime_build import build_runtime
from edgekit.targets.ssh import Device, DeviceError, Target, connect, parse_target
from edgekit.targets.transfer import KIT, bring, open_folder
from edgekit_devices import Found, Profile, fitting_profile, shortcomings
from edgekit_devices.wheelhouse import Wheelhouse
from edgekit_runtime.errors import EdgekitError, TargetError, UsageError
from edgekit_runtime.formats.bundle import Bundle, open_bundle

log = logging.getLogger(__name__)

MOST_AT_ONCE = 16
RESTORED = ("rolled back", "nothing is left")  # how the installer says what it left


@dataclass(frozen=True)
class Options:
    """What a rollout does on each device.

    Attributes:
        profile: the device; found out when None.
        service: start it with systemd.
        port: of the service.
        allow_downgrade: take an older bundle too.
        ssh: the ssh to use, with options.
    """

    profile: Profile | None = None
    service: bool = False
    port: int = 8080
    allow_downgrade: bool = False
    ssh: str = "ssh"


@dataclass(frozen=True)
class Outcome:
    """What became of one target; ``error`` is None where it answers now.

    Attributes:
        device: profile that was taken for it.
        sent: bytes that travelled.
        seconds: from the first connection to the end.
        said: last line of the installer.
    """

    target: str
    device: str | None
    sent: int
    seconds: float
    said: str
    error: EdgekitError | None


def deploy(bundle: Path, targets: Sequence[str], options: Options) -> list[Outcome]:
    """Install a bundle on each target, all at once, and roll back where it doesn't answer.

    Args:
        bundle: folder or .tar.
        targets: ``ssh://[user@]host[:port][/path]``.
        options: what is done on each.

    Returns:
        One outcome for each target, in their order; failures are in them and not raised.

    Raises:
        UsageError: a target that is none, or is there twice.
        InputError: the bundle isn't sound.
    """
    parsed = [parse_target(text) for text in targets]
    if len({(each.user, each.host, each.port, each.path) for each in parsed}) < len(parsed):
        raise UsageError("a target is there twice", "name each once")
    with open_bundle(bundle) as opened, ThreadPoolExecutor(min(len(parsed), MOST_AT_ONCE)) as pool:
        kits = _Kits(opened)
        return list(pool.map(lambda target: _attempt(target, kits, options), parsed))


class _Kits:
    """Kits by wheelhouse: devices of one kind share one, and the first thread builds it."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._lock = threading.Lock()
        self._made: dict[tuple[str, str, str], list[KitFile]] = {}

    def for_device(self, profile: Profile, found: Found) -> list[KitFile]:
        python = ".".join(found.python.split(".")[:2])
        with self._lock:
            key = (profile.architecture, profile.libc, python)
            if key not in self._made:
                house: Wheelhouse = build_runtime(profile, python=python)
                self._made[key] = kit_files(self._bundle, house)
            return self._made[key]


def _attempt(target: Target, kits: _Kits, options: Options) -> Outcome:
    start = time.monotonic()
    name, sent, said, failure = None, 0, "", None
    with connect(target, options.ssh) as device:
        try:
            found = probe(device)
            profile = _profile(target, found, options)
            name = profile.name
            kit = kits.for_device(profile, found)
            folder, free_mb = open_folder(device)
            bring(device, folder, kit, free_mb)
            said = _install(device, folder, options)
            log.info("%s: %s", target.text, said)
        except EdgekitError as error:
            failure = error
        sent = device.sent
    return Outcome(target.text, name, sent, time.monotonic() - start, said, failure)


def _profile(target: Target, found: Found, options: Options) -> Profile:
    profile = options.profile or fitting_profile(found)
    if profile is None:
        raise TargetError(f"{target.text}: no profile fits a {found.architecture} machine", "name one with --device")
    lacking = [text for text in shortcomings(found, profile) if "it has Python" not in text]
    if lacking:
        problem, _, hint = lacking[0].rpartition(": ")
        raise TargetError(f"{target.text}: {problem}", hint)
    return profile


def _install(device: Device, folder: str, options: Options) -> str:
    """Run the installer there; returns its last line."""
    words = ["sh", f"{KIT}/{INSTALLER}", "--prefix", folder]
    if options.service:
        words += ["--service", "--port", str(options.port)]
    if options.allow_downgrade:
        words += ["--allow-downgrade"]
    # Whatever comes of it, the bundle is in the store or is of no use.  A kit with a damaged file (3) is sent again.
    script = f"""
cd {shlex.quote(folder)}
status=0
{shlex.join(words)} || status=$?
rm -rf {KIT}/{BUNDLE_FOLDER}
if [ $status = 3 ]; then rm -rf {KIT}; fi
exit $status
"""
    try:
        return device.run(script).strip().splitlines()[-1]
    except DeviceError as error:
        now = [line for line in error.output.splitlines() if line.startswith(RESTORED)]
        raise TargetError("; ".join([error.problem, *now]), error.hint) from None
