"""The llama.cpp converters of the very llama.cpp that the installed engine was built from.

llama-cpp-python's wheel has no converters, its source distribution has.  It is fetched once through pip into the
cache, the converters are unpacked, and a checksum of each file is kept and checked on every use, so that later runs
need no network and notice a damaged cache.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from edgekit_exporters.cache import cache_folder, cached
from edgekit_exporters.hf.codeless import carries_code
from edgekit_runtime.errors import EdgekitError, InputError, TargetError

log = logging.getLogger(__name__)

PACKAGE = "llama-cpp-python"
# The source distribution of the pinned version; another version is taken as pip delivers it.
KNOWN_SDISTS = {"0.3.36": "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"}
WANTED = ("convert_hf_to_gguf.py", "convert_lora_to_gguf.py", "conversion/", "gguf-py/gguf/", "LICENSE")
CHECKSUMS = "SHA256.json"
TOKENIZER_FILES = ("tokenizer.*", "vocab.*", "*.model", "*tiktoken*", "tekken.json")
SPEAKER = re.compile(r"^(?:ERROR:[\w-]+:|\w+(?:Error|Exception): )")  # of a log line, of an exception
IN_CONVERTER = Path(__file__).with_name("in_converter.py")


def engine_version() -> str:
    """Version of the installed llama-cpp-python."""
    return importlib.metadata.version(PACKAGE)


def _conversion() -> str:
    ours = hashlib.sha256(IN_CONVERTER.read_bytes()).hexdigest()[:8]
    return f"{PACKAGE}-{engine_version()}-transformers-{importlib.metadata.version('transformers')}-{ours}"


# For names in the cache: all that the result of a conversion depends on, beside the model.
CONVERSION = _conversion()


def tools_folder() -> Path:
    """Return the folder with ``convert_hf_to_gguf.py`` and ``convert_lora_to_gguf.py``, fetching it if needed.

    Raises:
        TargetError: the source distribution can't be had.
        InputError: the source distribution or the cached converters are not what their checksums say.
    """
    version = engine_version()
    folder = cached(cache_folder("llama.cpp") / version, lambda temporary: _unpack(version, temporary))
    _check(folder)
    return folder


def convert(folder: Path, destination: Path, *options: str | Path) -> None:
    """Convert a Hugging Face folder to GGUF.

    Raises:
        InputError: the folder has no tokenizer, or the converter refused the model; why is in the message.
    """
    _run("convert", folder, "--outfile", destination, *options)


def outline(folder: Path, destination: Path, *options: str | Path) -> None:
    """Write the header of what :func:`convert` would, then the length of the whole in 8 bytes; reads no weights.

    Raises:
        InputError: as :func:`convert`.
    """
    _run("outline", folder, "--outfile", destination, *options)


def derive_map(folder: Path, file: Path) -> None:
    """Write what a conversion does to each parameter; :mod:`~edgekit_exporters.conversion.tensor_map` reads it.

    Raises:
        InputError: as :func:`convert`.
    """
    _run("map", folder, file)


def convert_plain(folders: Sequence[Path]) -> None:
    """Convert each folder without its vocabulary, and derive its map; see ``plain`` in ``in_converter.py``.

    A folder gets ``plain.gguf`` (F32) and ``map.npz``, or ``error.txt`` when the converter refuses it.  So does the
    folder ``merged`` in it where there is one: the same model with other weights.
    """
    _run("plain", *folders)


def _run(verb: str, folder: Path, *arguments: str | Path) -> None:
    """Run a converter in a process of its own: it brings its own copy of the gguf package."""
    if carries_code(folder):  # they would run it
        raise InputError(f"{folder} has code or pickles in it", "remove them, or let edgekit find the base")
    command = [sys.executable, "-P", str(IN_CONVERTER), str(tools_folder()), verb, str(folder), *map(str, arguments)]
    log.debug("running %s", " ".join(command))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    done = _finished(command, environment)
    log.debug("%s", done.stderr)
    if done.returncode:
        raise _refusal(verb, folder, done.stderr)


def _finished(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def _refusal(verb: str, folder: Path, stderr: str) -> InputError:
    """What a converter's last words mean for whoever chose the model."""
    if "No space left" in stderr:
        return InputError("the disk is full", "free some space and run the same command again")
    if verb == "convert" and not any(any(folder.glob(pattern)) for pattern in TOKENIZER_FILES):
        return InputError(f"{folder} has no tokenizer", "put its files beside config.json (tokenizer.json)")
    if "pre-tokenizer was not recognized" in stderr:
        return InputError(
            f"llama.cpp does not know the pre-tokenizer of {folder}",
            "restore the tokenizer files that the model was published with, or choose a base whose tokenizer it knows",
        )
    last = stderr.strip().splitlines()[-1] if stderr.strip() else "it gave no reason"
    reason = SPEAKER.sub("", last)
    if "Can not map tensor" in stderr:
        return InputError(
            f"llama.cpp's converter can't convert {folder}: {reason}",
            "check that config.json and the weights are of one model, and that llama.cpp supports all of it",
        )
    return InputError(
        f"llama.cpp's converter can't convert {folder}: {reason}",
        "check that the architecture is one that llama.cpp supports (--debug shows all that it said)",
    )


def _unpack(version: str, destination: Path) -> None:
    archive = source_distribution(version)
    checksums: dict[str, str] = {}
    destination.mkdir(parents=True)
    with tarfile.open(archive) as tar:
        for member in tar:
            name = _wanted_name(member.name)
            if name is None or not member.isfile():
                continue
            stream = tar.extractfile(member)
            assert stream is not None  # isfile() members have data
            content = stream.read()
            path = destination / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            checksums[name] = hashlib.sha256(content).hexdigest()
    if "convert_lora_to_gguf.py" not in checksums:
        raise EdgekitError(f"the source distribution of {PACKAGE} {version} carries no llama.cpp converters")
    (destination / CHECKSUMS).write_text(json.dumps(checksums, indent=1, sort_keys=True))


def _wanted_name(member: str) -> str | None:
    """``llama_cpp_python-V/vendor/llama.cpp/NAME`` -> NAME when it is one we use."""
    parts = PurePosixPath(member).parts
    if len(parts) < 4 or parts[1:3] != ("vendor", "llama.cpp") or ".." in parts:
        return None
    name = "/".join(parts[3:])
    return name if name.startswith(WANTED) else None


def source_distribution(version: str) -> Path:
    """Path of the sdist in the cache; pip fetches it the first time."""
    archive = cache_folder("llama.cpp") / f"llama_cpp_python-{version}.tar.gz"
    if not archive.exists():
        log.info("fetching the llama.cpp converters of %s %s (once)", PACKAGE, version)
        cached(archive, lambda temporary: _download(version, archive, temporary))
    digest = _sha256(archive)
    expected = KNOWN_SDISTS.get(version, digest)
    if digest != expected:
        raise InputError(
            f"{archive} has sha256 {digest[:12]}…, not {expected[:12]}…",
            "delete it and run the command again",
        )
    return archive


def _download(version: str, archive: Path, temporary: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", PACKAGE),
            *("--dest", folder, f"{PACKAGE}=={version}"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = list(Path(folder).glob("*.tar.gz"))
        if done.returncode or not found:
            reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
            raise TargetError(
                f"the llama.cpp converters can't be had: pip could not download {PACKAGE} {version} ({reason})",
                f"connect once, or put its source distribution at {archive}",
            )
        shutil.copyfile(found[0], temporary)


def _check(folder: Path) -> None:
    checksums: dict[str, str] = json.loads((folder / CHECKSUMS).read_text())
    for name, expected in checksums.items():
        path = folder / name
        if not path.is_file() or _sha256(path) != expected:
            raise InputError(f"the cached converter {path} is damaged", f"delete {folder} and run the command again")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
