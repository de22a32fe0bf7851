"""Bringing a kit's files to a device: only those that it lacks, each checked there, put together in one step."""

from __future__ import annotations

import logging
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgekit.targets.offline_kit import KitFile
from edgekit.targets.ssh import Device
from edgekit_runtime.errors import TargetError

log = logging.getLogger(__name__)

MIB = 1024 * 1024
# Below the device's folder.  `kit` is the last one that arrived whole, without its bundle, which is in the store.
INCOMING, OBJECTS, KIT = "incoming", "store/objects/sha256", "kit"
_LIST = f"""
ls {INCOMING} {OBJECTS} 2>/dev/null || true
echo ---
if [ -d {KIT} ]; then cd {KIT} && find . -type f -exec sha256sum {{}} +; fi
"""
_PLACE = f"""
rm -rf {KIT}.new
place() {{
    mkdir -p "$(dirname "{KIT}.new/$2")"
    for from in "{INCOMING}/$1" "{OBJECTS}/$1" "{KIT}/$2"; do
        if [ -f "$from" ]; then
            ln "$from" "{KIT}.new/$2" 2>/dev/null || cp "$from" "{KIT}.new/$2"
            return
        fi
    done
    echo "error: $2 is gone: deploy again" >&2
    exit 1
}}
"""
_SWITCH = f"""
rm -rf {KIT}.old
if [ -d {KIT} ]; then mv {KIT} {KIT}.old; fi
mv {KIT}.new {KIT}
rm -rf {KIT}.old {INCOMING}
"""


def open_folder(device: Device) -> tuple[str, int]:
    """Make the device's folder; returns its absolute path and how many MiB are free there."""
    choose = device.target.choose_folder()
    said = device.run(f'set -e\n{choose}\nmkdir -p "$f/{INCOMING}"\ncd "$f"\npwd\ndf -Pk . | tail -n 1')
    folder, room = said.splitlines()
    return folder, int(room.split()[3]) // 1024


def bring(device: Device, folder: str, kit: Sequence[KitFile], free_mb: int) -> None:
    """Have ``kit`` in the folder ``kit`` there, sending what the device has in no other place.

    Raises:
        TargetError: there is no room, or the link broke for good; what has arrived stays for the next time.
    """
    anywhere, _, in_place = _in(device, folder, _LIST).partition("---\n")
    digests, lines = set(anywhere.split()), set(in_place.splitlines())
    missing = {
        file.sha256: file for file in kit if file.sha256 not in digests and f"{file.sha256}  ./{file.path}" not in lines
    }
    size = sum(file.size for file in missing.values())
    if size > free_mb * MIB:
        raise TargetError(
            f"{device.target.text}: its disk is full: {free_mb} MiB are free and {size / MIB:.0f} MiB have to be sent",
            "free some space there and run this again",
        )
    log.info("%s: sending %d of %d files, %.1f MiB", device.target.text, len(missing), len(kit), size / MIB)
    with tempfile.TemporaryDirectory(prefix="edgekit-kit-") as scratch:
        for file in missing.values():
            source = file.source
            if isinstance(source, bytes):
                source = Path(scratch) / file.sha256
                source.write_bytes(file.source)  # type: ignore[arg-type]
            device.upload(source, file.sha256, f"{folder}/{INCOMING}/{file.sha256}")
    places = "\n".join(f"place {file.sha256} {shlex.quote(file.path)}" for file in kit)
    _in(device, folder, f"{_PLACE}{places}\n{_SWITCH}")


def _in(device: Device, folder: str, script: str) -> str:
    return device.run(f"set -e\ncd {shlex.quote(folder)}\n{script}")
