"""Device profiles: one TOML file a device, in the folder ``data`` beside this file or given by the user."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path

SUFFIX = ".toml"


class UnknownDeviceError(LookupError):
    """No profile goes by that name; the message says which there are."""


class BadProfileError(ValueError):
    """A profile file is malformed; the message says where and how to mend it."""


@dataclass(frozen=True)
class Profile:
    """One kind of device.

    Attributes:
        name: what users write, ``raspberry-pi-5`` say.
        title: the maker's name for it.
        architecture: machine as ``uname -m`` prints it.
        isa: compiler flag that its CPU stands for (``-march``).
        cpu: core type.
        cores: number of them.
        memory_mb: RAM of the smallest model still sold, in MiB.
        source: where these facts are from.
    """

    name: str
    title: str
    architecture: str
    isa: str
    cpu: str
    cores: int
    memory_mb: int
    source: str


def profile_names() -> list[str]:
    """Names of the profiles that edgekit knows, sorted."""
    return sorted(
        entry.name.removesuffix(SUFFIX)
        for entry in files(__package__).joinpath("data").iterdir()
        if entry.name.endswith(SUFFIX)
    )


def load_profile(name: str) -> Profile:
    """Load a profile by name, or by the path of a user's own TOML file.

    Raises:
        UnknownDeviceError: no profile by that name.
        BadProfileError: the file can't be read or is malformed.
    """
    if name.endswith(SUFFIX):
        path = Path(name)
        try:
            return _parse(path.read_text(encoding="utf-8"), path.stem, name)
        except OSError as error:
            raise BadProfileError(f"{name} can't be read ({error.strerror}): check the path") from None
    names = profile_names()
    if name not in names:
        close = difflib.get_close_matches(name, names, 1)
        mend = f"did you mean {close[0]}?" if close else f"use one of {', '.join(names)}, or a TOML file of your own"
        raise UnknownDeviceError(f"no device is called {name!r}: {mend}")
    text = files(__package__).joinpath("data", name + SUFFIX).read_text(encoding="utf-8")
    return _parse(text, name, name + SUFFIX)


def _parse(text: str, name: str, where: str) -> Profile:
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadProfileError(f"{where} is not TOML ({error}): correct that line") from None
    expected = {field.name: field.type for field in fields(Profile) if field.name != "name"}
    unknown, missing = sorted(set(values) - set(expected)), sorted(set(expected) - set(values))
    if unknown or missing:
        raise BadProfileError(
            f"{where} has {'unknown' if unknown else 'no'} {', '.join(unknown or missing)}: "
            f"a profile has {', '.join(sorted(expected))}"
        )
    for key, value in values.items():
        wanted = int if expected[key] == "int" else str
        if type(value) is not wanted:
            kind = "a whole number" if wanted is int else "text"
            raise BadProfileError(f"{where}: {key} has to be {kind}: correct it")
    return Profile(name=name, **values)
