"""The x86-64 runtime on an old CPU: this machine's system, its CPU hidden behind user-mode QEMU."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.targets.devices import device_profile
from edgekit.targets.offline_kit import write_offline
from edgekit.targets.runtime_build import build_runtime
from edgekit_runtime import Runtime
from edgekit_runtime.formats.bundle import open_bundle
from tests.targets.test_boards import PROMPT, TOKENS

QEMU = shutil.which("qemu-x86_64-static")
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"

pytestmark = pytest.mark.skipif(
    QEMU is None or os.uname().machine != "x86_64",
    reason="needs an x86-64 machine and qemu-x86_64-static: apt install qemu-user-static",
)


def test_a_box_without_avx_gives_the_tokens_of_this_machine(demo_bundle: Path, tmp_path: Path) -> None:
    profile = device_profile("x86-64-baseline")
    with open_bundle(demo_bundle) as bundle:
        archive = write_offline(bundle, build_runtime(profile, python=PYTHON), tmp_path / "kit.tar")
    shutil.unpack_archive(archive, tmp_path)
    prefix = tmp_path / "device"
    install = ["unshare", "-n", "sh", str(tmp_path / "kit" / "install.sh"), "--prefix", str(prefix)]
    print("\n" + subprocess.run(install, check=True, capture_output=True, text=True).stdout)

    def emulated(*words: str) -> str:
        assert QEMU is not None
        python = str(prefix / "runtime" / "bin" / "python")
        command = [QEMU, "-cpu", profile.qemu_cpu, python, "-m", "edgekit_runtime", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=1800).stdout

    checks = {check["what"]: check["found"] for check in json.loads(emulated("doctor", "--json"))}
    print(f"{profile.qemu_cpu}: {checks['engine']}")
    assert "AVX" not in checks["engine"]
    with Runtime(demo_bundle, context=512) as runtime:
        for name in ("base", "one", "two"):
            expected = runtime.generate(PROMPT, adapter=name, max_tokens=TOKENS, temperature=0).text
            options = [
                "--adapter",
                name,
                "--max-tokens",
                str(TOKENS),
                "--temperature",
                "0",
                "--context",
                "512",
                "--json",
            ]
            said = emulated("run", "--store", str(prefix / "store"), "--prompt", PROMPT, *options)
            assert json.loads(said)["text"] == expected
