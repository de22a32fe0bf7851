"""Device profiles and what devices say of themselves, with the errors of the kit."""

from __future__ import annotations

import subprocess
import sys

import edgekit_devices
from edgekit.targets.ssh import Device, connect, parse_target
from edgekit_devices import Found, Profile
from edgekit_runtime.errors import InputError, TargetError, UsageError

BROWSER_ENGINE = "browser"  # of a profile: what runs bundles in a page


def device_profile(name: str) -> Profile:
    """The profile called ``name``, or the one in the TOML file of that path.

    Raises:
        UsageError: no such device.
        InputError: the user's own profile is malformed.
    """
    try:
        return edgekit_devices.load_profile(name)
    except edgekit_devices.UnknownDeviceError as error:
        raise UsageError(error.problem, error.hint) from None
    except edgekit_devices.BadProfileError as error:
        raise InputError(error.problem, error.hint) from None


def device_profiles() -> list[Profile]:
    """All profiles that edgekit ships."""
    return [device_profile(name) for name in edgekit_devices.profile_names()]


def detect(target: str | None = None, ssh: str = "ssh") -> tuple[Found, Profile | None]:
    """What a machine is, and the profile that fits it, if one does.

    Args:
        target: ``ssh://…``, or None for this machine.
        ssh: the ssh to use, with options.

    Raises:
        UsageError: no such target.
        TargetError: it can't be reached, or isn't a machine with a shell.
    """
    if target is None:
        if sys.platform == "win32":
            raise UsageError("devices are detected on Linux", "name one: edgekit devices detect ssh://…")
        done = subprocess.run(["sh", "-c", edgekit_devices.probe_script()], capture_output=True, text=True, check=False)
        found = _parsed(done.stdout, "this machine")
    else:
        with connect(parse_target(target), ssh) as device:
            found = probe(device)
    return found, edgekit_devices.fitting_profile(found)


def probe(device: Device) -> Found:
    """What a connected device is.

    Raises:
        TargetError: it isn't a machine with a POSIX shell.
    """
    return _parsed(device.run(edgekit_devices.probe_script()), device.target.text)


def _parsed(output: str, where: str) -> Found:
    try:
        return edgekit_devices.parse_probe(output)
    except ValueError as error:
        raise TargetError(f"{where} can't be told what it is ({error})", "it has to have a POSIX shell") from None
