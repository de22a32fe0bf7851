"""What is known of targets."""

from edgekit_devices.profiles import BadProfileError, Profile, UnknownDeviceError, load_profile, profile_names

__all__ = ["BadProfileError", "Profile", "UnknownDeviceError", "load_profile", "profile_names"]
