"""Device profiles, with the errors of the kit."""

from __future__ import annotations

import edgekit_devices
from edgekit_runtime.errors import InputError, UsageError


def device_profile(name: str) -> edgekit_devices.Profile:
    """The profile called ``name``, or the one in the TOML file of that path.

    Raises:
        UsageError: no such device.
        InputError: the user's own profile is malformed.
    """
    try:
        return edgekit_devices.load_profile(name)
    except edgekit_devices.UnknownDeviceError as error:
        raise UsageError(*str(error.args[0]).split(": ", 1)) from None
    except edgekit_devices.BadProfileError as error:
        raise InputError(*str(error).rsplit(": ", 1)) from None


def device_profiles() -> list[edgekit_devices.Profile]:
    """All profiles that edgekit ships."""
    return [device_profile(name) for name in edgekit_devices.profile_names()]
