"""The JavaScript and WebAssembly of others that a site needs, at pinned versions.

npm fetches each package once into the cache; its sha512 is checked on every use, so later builds need no network and
notice a damaged cache.
"""

from __future__ import annotations

import base64
import hashlib
import io
import logging
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgekit.site.kernels import with_kernels
from edgekit_exporters.cache import cache_folder, cached
from edgekit_runtime.errors import InputError, TargetError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Package:
    """An npm package.

    Attributes:
        name: as npm knows it.
        version: exact.
        sha512: of its tarball, base64, as in npm's ``dist.integrity``.
        license: SPDX name.
        folder: of the site, below ``vendor/``.
        files: what is taken from it -> name in that folder.
    """

    name: str
    version: str
    sha512: str
    license: str
    folder: str
    files: Mapping[str, str]


# wllama is llama.cpp for WebAssembly.  The compat build is for browsers without 64-bit memory or JSPI (Safari).
PACKAGES = (
    Package(
        name="@wllama/wllama",
        version="3.13.0",
        sha512="ZvoRdQAn+E+18EvQ9qS036gudiI9rbZRBJgG/qNICPPwrA0Y6SMMdbziz/j7K/0WxcbJlhaRraVIYsnEy732NA==",
        license="MIT",
        folder="wllama",
        files={"LICENCE": "LICENSE", "esm/index.min.js": "wllama.js", "esm/wasm/wllama.wasm": "wllama.wasm"},
    ),
    Package(
        name="@wllama/wllama-compat",
        version="3.13.0",
        sha512="MSWwyzVXpwkstvIGzOsQ9jlRm8kY5S5J0Gdw4E6M9mXqhgO/5tj+YNfxSoqN1GvsAOwui95JPtwX3hO6VZkbzg==",
        license="MIT",
        folder="wllama",
        files={"wasm/wllama.js": "compat.js", "wasm/wllama.wasm": "compat.wasm"},
    ),
    Package(
        name="@huggingface/jinja",
        version="0.5.11",
        sha512="YzEzwM5oQf4r0vs7ifWQ+yuVR1YkAHrjERQ+a8WRsStHHp4NRBg+NesjiFc+X2AFUpRvvrIeHDS1xFy9jY/IjQ==",
        license="MIT",
        folder="jinja",
        files={"LICENSE": "LICENSE", "dist/index.js": "jinja.js"},
    ),
    Package(
        name="@noble/hashes",
        version="2.4.0",
        sha512="X5XaVWZIBCT7HHZGm5I7ZQXDwLG+bGXuSrMQAW+7Zvl87h1kmc1ZB1VSRJcpUfoUrGQp4Fkoxm5kZ+Ms+aW+eA==",
        license="MIT",
        folder="noble-hashes",
        files={name: name for name in ("LICENSE", "sha2.js", "_md.js", "_u64.js", "utils.js")},
    ),
)


def vendored_files() -> Iterator[tuple[str, bytes]]:
    """Every file of others with its path below ``vendor/``.

    Raises:
        TargetError: npm is missing or can't fetch a package.
        InputError: a package is not what its digest says.
    """
    for package in PACKAGES:
        packed = package_bytes(package)
        with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as tar:
            for inside, name in package.files.items():
                stream = tar.extractfile(f"package/{inside}")
                assert stream is not None  # the digest vouches for it
                content = stream.read()
                yield f"{package.folder}/{name}", with_kernels(content) if name.endswith(".wasm") else content


def package_bytes(package: Package) -> bytes:
    """A package's tarball, from the cache or through npm.

    Raises:
        TargetError: npm is missing or can't fetch it.
        InputError: it is not what its digest says.
    """
    name = f"{package.name.removeprefix('@').replace('/', '-')}-{package.version}.tgz"
    path = cache_folder("npm") / name
    if not path.exists():
        log.info("fetching %s %s (once)", package.name, package.version)
        cached(path, lambda temporary: _download(package, path, temporary))
    content = path.read_bytes()
    if base64.b64encode(hashlib.sha512(content).digest()).decode() != package.sha512:
        raise InputError(
            f"{path} is not the package {package.name} {package.version}: its sha512 differs",
            "delete it and run the command again",
        )
    return content


def _download(package: Package, path: Path, temporary: Path) -> None:
    npm = shutil.which("npm")
    hint = f"connect once with npm installed, or put the package's tarball at {path}"
    if npm is None:
        raise TargetError(f"{package.name} {package.version} can't be had: npm is not installed", hint)
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", "--silent", "--ignore-scripts", f"{package.name}@{package.version}"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
        found = list(Path(folder).glob("*.tgz"))
        if done.returncode or len(found) != 1:
            reason = (done.stderr.strip().splitlines() or ["npm gave no reason"])[-1]
            raise TargetError(f"{package.name} {package.version} can't be had ({reason})", hint)
        shutil.copyfile(found[0], temporary)
