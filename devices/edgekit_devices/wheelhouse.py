"""A wheelhouse: every wheel that a device installs, for its CPU, C library and Python, with checksums and an SBOM."""

from __future__ import annotations

import email.parser
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from packaging.utils import parse_wheel_filename

from edgekit_devices.errors import WheelhouseError

WHEELHOUSE_SCHEMA = "edgekit.wheelhouse/1"
DESCRIPTION = "wheelhouse.json"
CHECKSUMS = "SHA256SUMS"
SBOM = "sbom.cdx.json"
OLDEST_MANYLINUX = 17  # glibc 2.17: manylinux2014, the oldest that has aarch64 wheels
INSTALLER = "pip"  # goes along: Debian's python3 comes without it


@dataclass(frozen=True)
class Platform:
    """What a device's Python can load.

    Attributes:
        architecture: as ``uname -m`` prints it.
        libc: newest that the device has, ``glibc-2.36``.
        python: ``3.11``.
    """

    architecture: str
    libc: str
    python: str

    def tags(self) -> list[str]:
        """Platform tags of wheels that run there, the newest first (PEP 600)."""
        newest = int(self.libc.removeprefix("glibc-2."))
        new = [f"manylinux_2_{minor}_{self.architecture}" for minor in range(newest, OLDEST_MANYLINUX - 1, -1)]
        return [*new, f"manylinux2014_{self.architecture}"]


@dataclass(frozen=True)
class Wheelhouse:
    """A finished one; ``digest`` is the sha256 of its checksum file, which stands for all that is in it."""

    folder: Path
    platform: Platform
    requirement: str
    digest: str
    files: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes of all wheels."""
        return sum((self.folder / name).stat().st_size for name in self.files)


def build_wheelhouse(
    folder: Path, platform: Platform, local: Sequence[Path], requirement: str, pins: Mapping[str, str]
) -> Wheelhouse:
    """Fill ``folder`` with wheels for ``platform``.

    Args:
        folder: is made; must not exist.
        platform: of the device.
        local: wheels that were built here.
        requirement: what is installed from it, ``edgekit-runtime==0.1.0``.
        pins: version by distribution name, of all that the requirement needs.

    Raises:
        WheelhouseError: a local wheel is for newer systems, or pip finds no wheel of something.
    """
    folder.mkdir(parents=True)
    for wheel in local:
        _check_tag(wheel, platform)
        shutil.copyfile(wheel, folder / wheel.name)
    _download(folder, platform, requirement, pins)
    names = sorted(path.name for path in folder.glob("*.whl"))
    (folder / SBOM).write_text(sbom(folder, names, requirement), encoding="utf-8")
    lines = [f"{_sha256(folder / name)}  {name}\n" for name in [*names, SBOM]]
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")
    document = {"schema": WHEELHOUSE_SCHEMA, "requirement": requirement, **asdict(platform), "files": names}
    (folder / DESCRIPTION).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return open_wheelhouse(folder)


def open_wheelhouse(folder: Path) -> Wheelhouse:
    """Read a wheelhouse and check every file against its checksum.

    Raises:
        WheelhouseError: none, or damaged.
    """
    try:
        document = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        checksums = (folder / CHECKSUMS).read_text(encoding="utf-8")
        for line in checksums.splitlines():
            digest, name = line.split("  ", 1)
            if _sha256(folder / name) != digest:
                raise WheelhouseError(f"{folder / name} is damaged", f"delete {folder} and build it again")
        platform = Platform(document["architecture"], document["libc"], document["python"])
        digest = hashlib.sha256(checksums.encode()).hexdigest()
        return Wheelhouse(folder, platform, document["requirement"], digest, tuple(document["files"]))
    except (OSError, ValueError, KeyError) as error:
        raise WheelhouseError(f"{folder} is no wheelhouse ({error})", "`edgekit build-runtime` makes one") from None


def sbom(folder: Path, names: Sequence[str], requirement: str) -> str:
    """The wheels as a CycloneDX 1.6 document; the same wheels give the same text."""
    import datetime
    import uuid

    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.license import DisjunctiveLicense
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_URL, " ".join(_sha256(folder / name) for name in names)))
    bom.metadata.timestamp = datetime.datetime(1980, 1, 1, tzinfo=datetime.UTC)
    name, _, version = requirement.partition("==")
    bom.metadata.component = Component(name=name, version=version, type=ComponentType.APPLICATION, bom_ref="product")
    for file in names:
        facts = wheel_metadata(folder / file)
        package, version = str(facts["Name"]), str(facts["Version"])
        license_text = str(facts["License-Expression"] or facts["License"] or "").strip().splitlines()
        url = PackageURL("pypi", None, re.sub(r"[-_.]+", "-", package).lower(), version, {"file_name": file})
        bom.components.add(
            Component(
                name=package,
                version=version,
                type=ComponentType.LIBRARY,
                bom_ref=file,
                purl=url,
                hashes=[HashType(alg=HashAlgorithm.SHA_256, content=_sha256(folder / file))],
                licenses=[DisjunctiveLicense(name=license_text[0])] if license_text else [],
            )
        )
    bom.register_dependency(bom.metadata.component, bom.components)
    return JsonV1Dot6(bom).output_as_string(indent=1) + "\n"


def wheel_metadata(wheel: Path) -> Any:
    """The METADATA of a wheel, as a message with fields."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.parser.Parser().parsestr(archive.read(name).decode("utf-8"), headersonly=True)


def _check_tag(wheel: Path, platform: Platform) -> None:
    if not {"any", *platform.tags()} & {tag.platform for tag in parse_wheel_filename(wheel.name)[3]}:
        raise WheelhouseError(
            f"{wheel.name} needs a newer C library than the device's {platform.libc}",
            "build it on an older system, Debian 12 say",
        )


def _download(folder: Path, platform: Platform, requirement: str, pins: Mapping[str, str]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        constraints = Path(scratch) / "constraints.txt"
        constraints.write_text("".join(f"{name}=={version}\n" for name, version in sorted(pins.items())))
        command = [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--only-binary", ":all:"),
            *("--dest", str(folder), "--find-links", str(folder), "--constraint", str(constraints)),
            *("--implementation", "cp", "--python-version", platform.python),
            *(word for tag in platform.tags() for word in ("--platform", tag)),
            *(requirement, INSTALLER),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr.strip()]
        raise WheelhouseError(
            f"pip found no wheels for {platform.architecture}, {platform.libc}, Python {platform.python} "
            f"({lines[-1].removeprefix('ERROR: ')})",
            "connect once, or choose another --python",
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
