"""A wheelhouse for this very machine, made of what is installed: no compiler, no network, a few seconds."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
from dataclasses import asdict
from pathlib import Path

from edgekit.targets.runtime_build import RUNTIME, _pins, runtime_wheel
from edgekit_devices.wheelfile import write_wheel
from edgekit_devices.wheelhouse import CHECKSUMS, DESCRIPTION, WHEELHOUSE_SCHEMA, Platform, Wheelhouse, open_wheelhouse

UNUSED = re.compile(
    r"/tests?/|^bin/|^include/|^lib/|__pycache__|\.pyi$|^\.\./|^llama_cpp/lib/.*\.so\.\d+\.\d"
)  # not needed


def local_wheelhouse(folder: Path, platform: Platform) -> Wheelhouse:
    """Pack every distribution that the runtime needs as a wheel again."""
    folder.mkdir(parents=True)
    runtime_wheel(folder)
    pins = _pins()
    for name in pins:
        if name != RUNTIME:
            _repack(importlib.metadata.distribution(name), folder)
    names = sorted(path.name for path in folder.glob("*.whl"))
    sums = "".join(f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names)
    (folder / CHECKSUMS).write_text(sums)
    requirement = f"{RUNTIME}=={pins[RUNTIME]}"
    document = {"schema": WHEELHOUSE_SCHEMA, "requirement": requirement, **asdict(platform), "files": names}
    (folder / DESCRIPTION).write_text(json.dumps(document))
    return open_wheelhouse(folder)


def _repack(distribution: importlib.metadata.Distribution, folder: Path) -> None:
    files, metadata = {}, {}
    for file in distribution.files or ():
        path = Path(str(distribution.locate_file(file)))
        if not path.is_file() or UNUSED.search(str(file)):
            continue
        _, _, rest = str(file).partition(".dist-info/")
        if not rest:
            files[str(file)] = path.read_bytes()
        elif rest not in ("RECORD", "INSTALLER", "WHEEL", "REQUESTED", "direct_url.json"):
            metadata[rest] = path.read_bytes()
    wheel = distribution.read_text("WHEEL") or ""
    tag = re.findall(r"^Tag: (\S+)$", wheel, re.MULTILINE)[0]
    name = re.sub(r"[-_.]+", "_", distribution.metadata["Name"])
    write_wheel(folder, name=name, version=distribution.version, tag=tag, files=files, metadata=metadata)
