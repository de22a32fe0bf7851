"""Device profiles: one TOML file a device, in the folder ``data`` beside this file or given by the user."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from edgekit_devices.errors import BadProfileError, UnknownDeviceError
from edgekit_devices.schema import read_profile

SUFFIX = ".toml"
ENGINES = ("llama.cpp", "browser")
BASES = ("calibrated", "published", "estimated")


@dataclass(frozen=True)
class Speed:
    """How fast llama.cpp is on a device; :mod:`edgekit_devices.speed` turns this into tokens per second.

    Attributes:
        basis: "calibrated" on several published models, "published" (one or two figures), or "estimated" from the
            memory bandwidth and the clock.
        decode_gbs: weights and KV cache that decoding reads per second, 10^9 bytes.
        prefill_gflops: matrix arithmetic of a prompt with Q4_0 weights, 10^9 operations per second.
        source: where the figures are from.
    """

    basis: str
    decode_gbs: float
    prefill_gflops: float
    source: str


@dataclass(frozen=True)
class Profile:
    """One kind of device.

    Attributes:
        name: what users write, ``raspberry-pi-5`` say.
        title: the maker's name for it.
        architecture: machine as ``uname -m`` prints it.
        isa: compiler flag that its CPU stands for (``-march``).
        cpu: core type.
        cores: number of them; of the big ones where there are two kinds.
        memory_mb: RAM of the smallest model still sold, in MiB.
        memory_bandwidth_gbs: peak of its memory interface, 10^9 bytes per second.
        source: where these facts are from.
        clock_mhz: highest clock of a core.
        features: instruction sets that it has, as /proc/cpuinfo names them.
        boards: how its firmware names it (/proc/device-tree/model starts with that).
        os_memory_mb: RAM that the system without a desktop keeps for itself, MiB.
        storage: what it boots from.
        storage_mbs: how fast that is read, 10^6 bytes per second.
        os: the system that the profile assumes.
        libc: its C library and version, ``glibc-2.36``; "none" in a browser.
        python: its Python, ``3.11``.
        engine: what runs bundles there.
        qemu_cpu: CPU model of user-mode QEMU that has the same instructions; empty when there is none.
        speed: None when nothing but the bandwidth is known.
    """

    name: str
    title: str
    architecture: str
    isa: str
    cpu: str
    cores: int
    memory_mb: int
    memory_bandwidth_gbs: float
    source: str
    clock_mhz: int = 0
    features: tuple[str, ...] = ()
    boards: tuple[str, ...] = ()
    os_memory_mb: int = 200
    storage: str = "unknown"
    storage_mbs: float = 40.0
    os: str = "Linux"
    libc: str = "glibc-2.36"
    python: str = "3.11"
    engine: str = "llama.cpp"
    qemu_cpu: str = ""
    speed: Speed | None = None


def profile_names() -> list[str]:
    """Names of the profiles that edgekit knows, sorted."""
    return sorted(
        entry.name.removesuffix(SUFFIX)
        for entry in files(__package__).joinpath("data").iterdir()
        if entry.name.endswith(SUFFIX)
    )


def load_profile(name: str) -> Profile:
    """Load a profile by name, or by the path of a user's own TOML file.

    A user's file may say ``extends = "raspberry-pi-5"`` and give only what is different.

    Raises:
        UnknownDeviceError: no profile by that name.
        BadProfileError: the file can't be read or is malformed; the message names file, line and key.
    """
    if name.endswith(SUFFIX):
        path = Path(name)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadProfileError(f"{name} can't be read ({error})", "check the path") from None
        return _build(text, path.stem, name)
    names = profile_names()
    if name not in names:
        close = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean {close[0]}?" if close else f"use one of {', '.join(names)}, or a TOML file of your own"
        raise UnknownDeviceError(f"no device is called {name!r}", hint)
    return _build(_shipped(name), name, name + SUFFIX)


def _shipped(name: str) -> str:
    return files(__package__).joinpath("data", name + SUFFIX).read_text(encoding="utf-8")


def _build(text: str, name: str, where: str) -> Profile:
    file = read_profile(text, where)
    base = file.values.pop("extends", None)
    values = file.values
    if base is not None:
        if base not in profile_names():
            raise file.error("extends", f"there is no profile {base!r}", f"use one of {', '.join(profile_names())}")
        values = read_profile(_shipped(base), base + SUFFIX).values | values
    file.check(values, Profile, required=base is None)
    if values.get("engine", ENGINES[0]) not in ENGINES:
        raise file.error("engine", f"engine is {values['engine']!r}", f"use one of {', '.join(ENGINES)}")
    speed = values.pop("speed", None)
    if speed is not None:
        file.check(speed, Speed, table="speed")
        if speed["basis"] not in BASES:
            raise file.error("basis", f"basis is {speed['basis']!r}", f"use one of {', '.join(BASES)}", table="speed")
        speed = Speed(**speed)
    lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
    return Profile(name=name, speed=speed, **(values | lists))
