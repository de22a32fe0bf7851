"""What is known of targets."""

from edgekit_devices.detect import Found, fitting_profile, parse_probe, probe_script, shortcomings
from edgekit_devices.errors import BadProfileError, UnknownDeviceError
from edgekit_devices.profiles import Profile, Speed, load_profile, profile_names

__all__ = [
    "BadProfileError",
    "Found",
    "Profile",
    "Speed",
    "UnknownDeviceError",
    "fitting_profile",
    "load_profile",
    "parse_probe",
    "probe_script",
    "profile_names",
    "shortcomings",
]
