"""What a machine is, from what ``probe.sh`` prints there, and which profile fits it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from edgekit_devices.profiles import Profile, load_profile, profile_names

# "CPU part" of /proc/cpuinfo for Arm's own cores (Arm's MIDR_EL1 list, as in Linux' arch/arm64/include/asm/cputype.h).
ARM_PARTS = {
    "0xd03": "Cortex-A53",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd09": "Cortex-A73",
    "0xd0a": "Cortex-A75",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd0d": "Cortex-A77",
    "0xd41": "Cortex-A78",
    "0xd42": "Cortex-A78AE",
    "0xd46": "Cortex-A510",
    "0xd47": "Cortex-A710",
}


@dataclass(frozen=True)
class Found:
    """What a machine says of itself; None and empty text for what it doesn't say.

    Attributes:
        memory_mb: RAM, MiB.
        available_mb: of it free now.
        disk_mb: free where edgekit would be installed.
        features: instruction sets as /proc/cpuinfo names them.
        init: the first process: "systemd" where services can be installed.
    """

    architecture: str
    board: str
    cpu: str
    cores: int | None
    clock_mhz: int | None
    memory_mb: int | None
    available_mb: int | None
    disk_mb: int | None
    features: tuple[str, ...]
    governor: str
    os: str
    libc: str
    python: str
    init: str


def probe_script() -> str:
    """The POSIX sh script that prints what :func:`parse_probe` reads."""
    return files(__package__).joinpath("probe.sh").read_text(encoding="utf-8")


def parse_probe(output: str) -> Found:
    """Read what ``probe.sh`` printed.

    Raises:
        ValueError: that is not its output.
    """
    values = dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
    if not values.get("architecture"):
        raise ValueError("no architecture in the probe's output")
    part = values.get("part", "")

    def number(key: str, unit: int) -> int | None:
        text = values.get(key, "")
        return int(text) // unit if text.isdecimal() else None

    return Found(
        architecture=values["architecture"],
        board=values.get("board", ""),
        cpu=ARM_PARTS.get(part) or values.get("model", "") or part,
        cores=number("cores", 1),
        clock_mhz=number("clock_khz", 1000),
        memory_mb=number("memory_kib", 1024),
        available_mb=number("available_kib", 1024),
        disk_mb=number("disk_kib", 1024),
        features=tuple(values.get("features", "").split()),
        governor=values.get("governor", ""),
        os=values.get("os", ""),
        libc=values.get("libc", ""),
        python=values.get("python", ""),
        init=values.get("init", ""),
    )


def fitting_profile(found: Found, profiles: Sequence[Profile] | None = None) -> Profile | None:
    """The profile of that board; else the one whose instructions it has, the most demanding first.

    A Linux board never gets the profile of a phone.
    """
    candidates = profiles or [load_profile(name) for name in profile_names()]
    same = [each for each in candidates if each.architecture == found.architecture]
    for each in same:
        if found.board and found.board.startswith(each.boards):
            return each
    general = [each for each in same if not each.boards and (each.libc == "bionic") == (found.libc == "")]
    able = [each for each in general if set(each.features) <= set(found.features)]
    return max(able, key=lambda each: len(each.features), default=None)


def shortcomings(found: Found, profile: Profile) -> list[str]:
    """What the machine lacks of what a runtime built for ``profile`` needs; each says how to mend it."""
    told = []
    missing = sorted(set(profile.features) - set(found.features))
    if found.architecture != profile.architecture:
        told.append(f"it is {found.architecture}, not {profile.architecture}: choose another --device")
    elif missing:
        told.append(f"its CPU lacks {', '.join(missing)}: choose another --device")
    if not found.python:
        told.append("it has no python3: install Python 3.11 or later there")
    elif profile.python != "none" and not found.python.startswith(profile.python + "."):
        told.append(f"it has Python {found.python}, not {profile.python}: build with --python {_minor(found.python)}")
    if profile.libc.startswith("glibc-") and _older(found.libc, profile.libc):
        told.append(f"its C library is {found.libc or 'unknown'}, older than {profile.libc}: use a newer system")
    return told


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _older(have: str, need: str) -> bool:
    if not have.startswith("glibc-"):
        return True
    return _version(have) < _version(need)


def _version(libc: str) -> tuple[int, ...]:
    return tuple(int(part) for part in libc.removeprefix("glibc-").split(".") if part.isdecimal())
