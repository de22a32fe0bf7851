"""What is shipped: two wheels with the files that they need, and commands that start without torch."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("project", "needed"),
    [
        (
            ".",
            [
                "edgekit/py.typed",
                "edgekit_exporters/bundle.py",
                "edgekit_devices/data/raspberry-pi-5.toml",
                "edgekit_web/app/edgekit-runtime/index.d.ts",
                "edgekit/proof/templates/page.html",
                "edgekit/pages/page.css",
                "edgekit/curation/templates/check.html",
            ],
        ),
        (".", ["edgekit/py.typed", "edgekit_exporters/bundle.py", "edgekit_devices/data/raspberry-pi-5.toml"]),
        (".", ["edgekit_devices/install.sh", "edgekit_devices/probe.sh", "edgekit_devices/published.csv"]),
        ("runtime", ["edgekit_runtime/py.typed", "edgekit_runtime/engines/llama/engine.py"]),
    ],
)
def test_a_wheel_has_its_packages_and_nothing_of_the_tests(project: str, needed: list[str], tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT / project)]
    subprocess.run(build, check=True, capture_output=True, text=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert set(needed) <= names
    assert not [name for name in names if name.startswith("tests/")]


@pytest.mark.parametrize("slow", ["torch", "pydantic", "ruamel.yaml"])
def test_the_command_line_starts_without_what_is_slow_to_import(slow: str) -> None:
    code = f"import sys, edgekit.cli; edgekit.cli.main(['--help']); sys.exit({slow!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
