"""The engine for a device: llama.cpp compiled here for its architecture, as a llama-cpp-python wheel.

One wheel serves every CPU of an architecture.  Its kernels are compiled several times, for the instruction sets that
boards have (GGML_CPU_ALL_VARIANTS), and llama.cpp loads the best one that the CPU can run (GGML_BACKEND_DL).
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from edgekit_devices.errors import BuildFailedError, MissingToolsError
from edgekit_devices.wheelfile import write_wheel

log = logging.getLogger(__name__)

RECIPE = 1  # a new number makes cached engines old
PACKAGE = "llama_cpp_python"
LIBRARIES = "llama_cpp/lib"
# Of llama.cpp's variants (ggml/src/CMakeLists.txt) those that boards and mini-PCs differ in; each costs a minute.
VARIANTS = {
    # Cortex-A53 and A72; A55, A76 and A78 (dot product, half floats); cores with SVE and 8-bit matrices.
    "aarch64": ("armv8.0_1", "armv8.2_2", "armv8.6_1"),
    # Any 64-bit x86; Atoms since 2013; AVX2; AVX2 with VNNI.
    "x86_64": ("x64", "sse42", "haswell", "alderlake"),
}
_VARIANT = re.compile(r"^ *ggml_add_cpu_backend_variant\(([\w.]+).*\)\n", re.MULTILINE)
_SETTINGS = {
    "CMAKE_BUILD_TYPE": "Release",
    "BUILD_SHARED_LIBS": "ON",
    "CMAKE_PLATFORM_NO_VERSIONED_SONAME": "ON",  # wheels have no links, and would hold each library three times
    "CMAKE_INSTALL_RPATH": "$ORIGIN",
    "CMAKE_BUILD_WITH_INSTALL_RPATH": "ON",
    "GGML_NATIVE": "OFF",
    "GGML_OPENMP": "OFF",  # its own threads: libgomp isn't on every device
    "GGML_BACKEND_DL": "ON",
    "GGML_CPU_ALL_VARIANTS": "ON",
    "GIT_EXE": "/bin/false",  # a commit, or that there is none, would get into the binaries
    "LLAMA_BUILD_MTMD": "ON",
    "LLAMA_BUILD_COMMON": "OFF",
    "LLAMA_BUILD_TOOLS": "OFF",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_SERVER": "OFF",
    "LLAMA_BUILD_APP": "OFF",
    "LLAMA_OPENSSL": "OFF",
}


@dataclass(frozen=True)
class Toolchain:
    """Debian's compilers for one architecture.

    Attributes:
        architecture: as ``uname -m`` prints it.
        prefix: of the compiler's and binutils' names.
        package: that has them.
    """

    architecture: str
    prefix: str
    package: str

    def tool(self, name: str) -> str:
        """Name of a tool."""
        return self.prefix + name

    def check(self) -> None:
        """Look that all tools are here.

        Raises:
            MissingToolsError: some are not.
        """
        needed = [*(self.tool(name) for name in ("gcc", "g++", "strip", "objdump")), "cmake"]
        missing = [name for name in needed if shutil.which(name) is None]
        if missing:
            raise MissingToolsError(
                f"{', '.join(missing)} not found",
                f"on Debian or Ubuntu, apt install {self.package} cmake ninja-build",
            )

    def version(self) -> str:
        """What the compiler calls itself: another one makes other bytes."""
        done = subprocess.run([self.tool("gcc"), "--version"], capture_output=True, text=True, check=True)
        return done.stdout.splitlines()[0]


TOOLCHAINS = {
    each.architecture: each
    for each in (
        Toolchain("aarch64", "aarch64-linux-gnu-", "crossbuild-essential-arm64"),
        Toolchain("x86_64", "x86_64-linux-gnu-", "crossbuild-essential-amd64"),
    )
}


def build_engine(sdist: Path, architecture: str, output: Path, work: Path) -> Path:
    """Compile llama-cpp-python's source distribution for an architecture.

    Args:
        sdist: ``llama_cpp_python-V.tar.gz``.
        architecture: key of ``TOOLCHAINS``.
        output: folder that the wheel is written to.
        work: a folder for sources and objects; where it is doesn't show in the result.

    Returns:
        The wheel.  The same source, toolchain and settings always give the same bytes.

    Raises:
        MissingToolsError: no compiler for that architecture.
        BuildFailedError: it doesn't compile.
    """
    toolchain = TOOLCHAINS[architecture]
    toolchain.check()
    root = _unpack(sdist, work)
    source, build = root / "vendor" / "llama.cpp", work / "build"
    _choose_variants(source / "ggml" / "src" / "CMakeLists.txt", VARIANTS[architecture])
    flags = f"-ffile-prefix-map={source}=llama.cpp -ffile-prefix-map={build}=build"
    settings = _SETTINGS | {
        "CMAKE_SYSTEM_NAME": "Linux",
        "CMAKE_SYSTEM_PROCESSOR": architecture,
        "CMAKE_C_COMPILER": toolchain.tool("gcc"),
        "CMAKE_CXX_COMPILER": toolchain.tool("g++"),
        "CMAKE_C_FLAGS": flags,
        "CMAKE_CXX_FLAGS": flags,
    }
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    definitions = [f"-D{name}={value}" for name, value in settings.items()]
    _run(["cmake", "-S", str(source), "-B", str(build), *generator, *definitions])
    _run(["cmake", "--build", str(build), "--parallel", str(os.cpu_count() or 1)])
    libraries = sorted((build / "bin").glob("*.so"))
    _run([toolchain.tool("strip"), "--strip-unneeded", *map(str, libraries)])
    return _pack(root, libraries, toolchain, output)


def _unpack(sdist: Path, work: Path) -> Path:
    with tarfile.open(sdist) as tar:
        tar.extractall(work, filter="data")
    (root,) = (entry for entry in work.iterdir() if entry.name.startswith(PACKAGE))
    return root


def _choose_variants(cmake: Path, wanted: tuple[str, ...]) -> None:
    """Leave only ``wanted`` variants in llama.cpp's list; it has no option for that."""
    text = cmake.read_text(encoding="utf-8")
    found = {match[1] for match in _VARIANT.finditer(text)}
    if not set(wanted) <= found:
        raise BuildFailedError(f"this llama.cpp has no CPU variant {', '.join(sorted(set(wanted) - found))}")
    cmake.write_text(_VARIANT.sub(lambda match: match[0] if match[1] in wanted else "", text), encoding="utf-8")


def _pack(root: Path, libraries: list[Path], toolchain: Toolchain, output: Path) -> Path:
    files = {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted((root / "llama_cpp").rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".so"
    }
    files |= {f"{LIBRARIES}/{path.name}": path.read_bytes() for path in libraries}
    licenses = {"LICENSE.md": root / "LICENSE.md", "LICENSE.llama.cpp": root / "vendor" / "llama.cpp" / "LICENSE"}
    metadata = (root / "PKG-INFO").read_text(encoding="utf-8")
    version = re.search(r"^Version: (\S+)$", metadata, re.MULTILINE)
    assert version is not None  # every sdist tells its version
    return write_wheel(
        output,
        name=PACKAGE,
        version=version[1],
        tag=f"py3-none-{_platform(libraries, toolchain)}",
        files=files,
        metadata={"METADATA": metadata.encode()}
        | {f"licenses/{name}": path.read_bytes() for name, path in licenses.items()},
    )


def _platform(libraries: list[Path], toolchain: Toolchain) -> str:
    """The manylinux tag (PEP 600): the newest glibc that a symbol of these libraries asks for."""
    dump = [toolchain.tool("objdump"), "--dynamic-syms", *map(str, libraries)]
    text = subprocess.run(dump, capture_output=True, text=True, check=True).stdout
    newest = max((int(major), int(minor)) for major, minor in re.findall(r"GLIBC_(\d+)\.(\d+)", text))
    return f"manylinux_{newest[0]}_{newest[1]}_{toolchain.architecture}"


def _run(command: list[str]) -> None:
    log.debug("running %s", " ".join(command))
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    log.debug("%s", done.stdout)
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if "error" in line.lower()] or done.stdout.splitlines()
        raise BuildFailedError(f"{command[0]} failed: {' | '.join(lines[-3:])}")
