"""What travels to a device that has nothing: bundle, runtime and installer, as a list of files or as one .tar."""

from __future__ import annotations

import hashlib
import io
import shlex
import tarfile
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import BinaryIO

from packaging.utils import parse_wheel_filename

from edgekit_devices.wheelhouse import Wheelhouse
from edgekit_runtime.files.durable import durable_file, place
from edgekit_runtime.formats.bundle import Bundle, file_digest, open_bundle
from edgekit_runtime.formats.manifest import Manifest

INSTALLER, FACTS, CHECKSUMS = "install.sh", "kit.env", "SHA256SUMS"
BUNDLE_FOLDER, WHEELHOUSE_FOLDER = "bundle", "wheelhouse"
UNPACKED = 5  # a virtual environment against the wheels that fill it, rounded up
HEADROOM_MB = 64  # for generations, logs and what an update has twice
MIB = 1024 * 1024
RUNTIME_DIGITS = 16


@dataclass(frozen=True)
class KitFile:
    """One file that travels: at ``path``, from a file here or made here."""

    path: str
    source: Path | bytes
    size: int
    sha256: str


def kit_files(bundle: Bundle, house: Wheelhouse) -> list[KitFile]:
    """All files of a kit, in an order that is always the same; the last one has the checksums of the others."""
    facts = "".join(f"{key}={shlex.quote(str(value))}\n" for key, value in _facts(bundle.manifest, house).items())
    installer = files("edgekit_devices").joinpath(INSTALLER).read_bytes()
    kit = [_made(INSTALLER, installer), _made(FACTS, facts.encode())]
    kit += [_copied(f"{WHEELHOUSE_FOLDER}/{path.name}", path) for path in sorted(house.folder.iterdir())]
    kit += [
        _copied(f"{BUNDLE_FOLDER}/{path.relative_to(bundle.root).as_posix()}", path)
        for path in sorted(bundle.root.rglob("*"))
        if path.is_file()
    ]
    sums = "".join(f"{file.sha256}  {file.path}\n" for file in kit)
    return [*kit, _made(CHECKSUMS, sums.encode())]


def runtime_name(house: Wheelhouse) -> str:
    """Name of a runtime's folder on devices: another wheelhouse is another runtime."""
    return house.digest[:RUNTIME_DIGITS]


def write_offline(bundle: Bundle, house: Wheelhouse, output: Path) -> Path:
    """Write a kit as one .tar, which unpacks to a folder of its own name; the same content gives the same bytes.

    Raises:
        OSError: it can't be written; what was there stays.
    """
    kit = kit_files(bundle, house)
    name = output.name.removesuffix(".tar")

    def write(target: BinaryIO) -> None:
        with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for file in kit:
                entry = tarfile.TarInfo(f"{name}/{file.path}")
                entry.size, entry.mode = file.size, 0o755 if file.path == INSTALLER else 0o644
                if isinstance(file.source, bytes):
                    tar.addfile(entry, io.BytesIO(file.source))
                else:
                    with file.source.open("rb") as stream:
                        tar.addfile(entry, stream)

    output.parent.mkdir(parents=True, exist_ok=True)
    with durable_file(output.parent, write) as temporary:
        place(temporary, output)
    return output


def offline_archive(folder: Path, house: Wheelhouse, device: str) -> Path:
    """The kit of a bundle folder as ``FOLDER-DEVICE.tar`` beside it.

    Args:
        folder: the bundle.
        house: the runtime.
        device: profile name, or the path of a user's own profile.
    """
    with open_bundle(folder) as bundle:
        return write_offline(bundle, house, folder.with_name(f"{folder.name}-{Path(device).stem}.tar"))


def _facts(manifest: Manifest, house: Wheelhouse) -> dict[str, object]:
    """What install.sh has to know, as shell variables."""
    bundle_bytes = sum(file.size for file in manifest.files)
    return {
        "NAME": manifest.name,
        "VERSION": manifest.version,
        "ARCHITECTURE": house.platform.architecture,
        "PYTHON": house.platform.python,
        "LIBC": _needed_libc(house),
        "REQUIREMENT": house.requirement,
        "RUNTIME": runtime_name(house),
        "RUNTIME_MB": UNPACKED * house.size // MIB,
        "BUNDLE_MB": bundle_bytes // MIB + HEADROOM_MB,
    }


def _needed_libc(house: Wheelhouse) -> str:
    """The newest glibc that a wheel asks for: often older than what the wheelhouse was built for."""
    minors = [min(minors) for name in house.files if (minors := _glibc_minors(name))]
    return f"2.{max(minors, default=17)}"


def _glibc_minors(wheel: str) -> list[int]:
    """N of each glibc 2.N that a wheel says it suits; none where it suits all."""
    platforms = {tag.platform for tag in parse_wheel_filename(wheel)[3]}
    return [int(each.split("_")[2]) for each in platforms if each.startswith("manylinux_2_")]


def _made(path: str, content: bytes) -> KitFile:
    return KitFile(path, content, len(content), hashlib.sha256(content).hexdigest())


def _copied(path: str, source: Path) -> KitFile:
    return KitFile(path, source, source.stat().st_size, file_digest(source))
