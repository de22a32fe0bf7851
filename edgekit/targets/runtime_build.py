"""`edgekit build-runtime`: all that a device installs, built here once and kept in the cache."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
import shutil
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from edgekit_devices.engine import RECIPE, TOOLCHAINS, VARIANTS, build_engine
from edgekit_devices.errors import BuildFailedError, MissingToolsError, WheelhouseError
from edgekit_devices.profiles import Profile
from edgekit_devices.wheelfile import write_wheel
from edgekit_devices.wheelhouse import (
    INSTALLER,
    Platform,
    Wheelhouse,
    build_wheelhouse,
    open_wheelhouse,
)
from edgekit_exporters.cache import cache_folder, cached
from edgekit_exporters.conversion.converters import engine_version, source_distribution
from edgekit_exporters.progress import stage
from edgekit_runtime.errors import TargetError, UsageError
from edgekit_runtime.files.atomic import publish

RUNTIME = "edgekit-runtime"
RUNTIME_PACKAGE = "edgekit_runtime"


def build_runtime(profile: Profile, *, python: str | None = None, output: Path | None = None) -> Wheelhouse:
    """Build, or take from the cache, the wheelhouse for a device.

    Args:
        profile: the device.
        python: its Python, when it isn't the profile's.
        output: also put it there; None leaves it in the cache.

    Raises:
        UsageError: such a device doesn't run edgekit-runtime.
        TargetError: compilers or wheels can't be had here; the message says how to get them.
    """
    platform = platform_of(profile, python)
    try:
        house = _wheelhouse(platform)
    except (MissingToolsError, BuildFailedError, WheelhouseError) as error:
        raise TargetError(error.problem, error.hint) from None
    if output is None:
        return house
    with publish(output, is_ours=_is_wheelhouse) as folder:
        shutil.copytree(house.folder, folder, dirs_exist_ok=True)
    return open_wheelhouse(output)


def platform_of(profile: Profile, python: str | None = None) -> Platform:
    """What wheels a device needs.

    Raises:
        UsageError: it doesn't run edgekit-runtime, or ``python`` is no version.
    """
    if profile.engine != "llama.cpp" or profile.architecture not in TOOLCHAINS or "glibc-2." not in profile.libc:
        raise UsageError(
            f"there is no offline runtime for {profile.name} ({profile.architecture}, {profile.libc})",
            f"it is built for Linux with glibc on {' and '.join(TOOLCHAINS)}",
        )
    if python is not None and not re.fullmatch(r"3\.\d+", python):
        raise UsageError(f"{python!r} is no Python version", "say 3.11, or 3.13")
    return Platform(profile.architecture, profile.libc, python or profile.python)


def engine_wheel(architecture: str) -> Path:
    """The engine for an architecture: compiled here the first time, which takes minutes.

    Raises:
        MissingToolsError: no compiler for it.
        BuildFailedError: it doesn't compile.
    """
    TOOLCHAINS[architecture].check()
    version = engine_version()
    sdist = source_distribution(version)
    key = _key([version, sdist.stat().st_size, RECIPE, VARIANTS[architecture], TOOLCHAINS[architecture].version()])

    def build(folder: Path) -> None:
        what = f"compiling the engine for {architecture} (once; ten minutes on two cores)"
        with stage(what), tempfile.TemporaryDirectory(prefix="edgekit-engine-") as work:
            build_engine(sdist, architecture, folder, Path(work))

    (wheel,) = cached(cache_folder("engines") / f"{architecture}-{version}-{key}", build).glob("*.whl")
    return wheel


def runtime_wheel(folder: Path) -> Path:
    """edgekit-runtime as it is installed here, packed as a wheel again; the source need not be there."""
    distribution = importlib.metadata.distribution(RUNTIME)
    package = files(RUNTIME_PACKAGE)
    assert isinstance(package, Path)  # never a zip: it has data files beside its code
    content = {
        f"{RUNTIME_PACKAGE}/{path.relative_to(package).as_posix()}": path.read_bytes()
        for path in sorted(package.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    metadata = {
        name: text.encode()
        for name in ("METADATA", "entry_points.txt")
        if (text := distribution.read_text(name)) is not None
    }
    return write_wheel(
        folder, name=RUNTIME_PACKAGE, version=distribution.version, tag="py3-none-any", files=content, metadata=metadata
    )


def _wheelhouse(platform: Platform) -> Wheelhouse:
    engine = engine_wheel(platform.architecture)
    pins = _pins()
    requirement = f"{RUNTIME}=={importlib.metadata.version(RUNTIME)}"
    with tempfile.TemporaryDirectory(prefix="edgekit-runtime-") as scratch:
        runtime = runtime_wheel(Path(scratch))
        digests = [hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in (engine, runtime)]
        key = _key([RECIPE, *vars(platform).values(), digests, sorted(pins.items())])

        def build(folder: Path) -> None:
            with stage(f"collecting wheels for {platform.architecture}, {platform.libc}, Python {platform.python}"):
                build_wheelhouse(folder, platform, [engine, runtime], requirement, pins)

        name = f"{platform.architecture}-{platform.libc}-python{platform.python}-{key}"
        return open_wheelhouse(cached(cache_folder("wheelhouses") / name, build))


def _pins() -> dict[str, str]:
    """Versions of all that edgekit-runtime needs, as installed here: what was tried is what devices get."""
    versions: dict[str, str] = {INSTALLER: importlib.metadata.version(INSTALLER)}
    left = [RUNTIME]
    while left:
        name = canonicalize_name(left.pop())
        if name in versions:
            continue
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:  # for other systems than this one; pip finds a version
            continue
        versions[name] = distribution.version
        # Markers are those of this Python: pip goes by them too when it collects wheels for another.
        requirements = map(Requirement, distribution.requires or ())
        left += [each.name for each in requirements if each.marker is None or each.marker.evaluate({"extra": ""})]
    return versions


def _is_wheelhouse(folder: Path) -> bool:
    try:
        open_wheelhouse(folder)
    except WheelhouseError:
        return False
    return True


def _key(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:12]
