"""Writing wheels so that the same content always gives the same bytes."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can tell


def write_wheel(
    folder: Path,
    *,
    name: str,
    version: str,
    tag: str,
    files: Mapping[str, bytes],
    metadata: Mapping[str, bytes],
) -> Path:
    """Write a wheel.

    Args:
        folder: where; it is made.
        name: distribution, normalised as file names are (``llama_cpp_python``).
        version: its version.
        tag: ``PYTHON-ABI-PLATFORM``.
        files: what is installed, by path.
        metadata: what is in its dist-info folder besides WHEEL and RECORD, METADATA first of all.

    Returns:
        The file.  Format: https://packaging.python.org/specifications/binary-distribution-format/
    """
    info = f"{name}-{version}.dist-info"
    pure = "true" if tag.endswith("-any") else "false"
    wheel = f"Wheel-Version: 1.0\nGenerator: edgekit\nRoot-Is-Purelib: {pure}\nTag: {tag}\n"
    content = dict(files) | {f"{info}/{key}": value for key, value in metadata.items()}
    content[f"{info}/WHEEL"] = wheel.encode()
    record = [f"{path},sha256={_digest(content[path])},{len(content[path])}" for path in sorted(content)]
    content[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(content):
            entry = zipfile.ZipInfo(path, _TIME)
            entry.external_attr = 0o100644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content[path])
    return target


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
