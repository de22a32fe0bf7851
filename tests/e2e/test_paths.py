"""What leaves the workstation names nobody's folders: all files of all commands, searched byte for byte."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit_exporters.cache import cache_folder

MARK = "zanzibar"  # in every folder of this machine, and its user's name
MADE_FROM = ("edgekit.yaml", "data")  # what the user wrote, and may name what it likes
FETCHED = ("llama.cpp", "npm")  # of the cache: what came from elsewhere


_RUN = """
import shlex, sys
from edgekit.cli import main
from edgekit_runtime.cli import main as runtime_main
for command in sys.argv[1:]:
    program, *words = shlex.split(command)
    if status := {"edgekit": main, "edgekit-runtime": runtime_main}[program](words):
        sys.exit(f"{command}: {status}")
"""


class Workstation:
    """A home, a project, and temporary and cache folders, all of them with names that can be found again."""

    def __init__(self, root: Path, base: Path) -> None:
        self.root = root
        self.project = root / f"{MARK}-projects" / "Línea 3 ö" / "line-3"
        self._environment = os.environ | {
            "HOME": str(root / f"{MARK}-home"),
            "TMPDIR": str(root / f"{MARK}-tmp"),
            "EDGEKIT_CACHE": str(root / f"{MARK}-cache"),
            **dict.fromkeys(("USER", "LOGNAME", "USERNAME"), f"{MARK}-user"),
        }
        for name in ("HOME", "TMPDIR", "EDGEKIT_CACHE"):
            Path(self._environment[name]).mkdir(parents=True)
        for name in FETCHED:
            if (cache_folder() / name).exists():
                (Path(self._environment["EDGEKIT_CACHE"]) / name).symlink_to(cache_folder() / name)
        shutil.copytree(base, root / f"{MARK}-models" / "tiny-chat")
        (self.project / "data").mkdir(parents=True)

    def write(self, settings: str, base: str) -> None:
        for name, count in (("train", 24), ("eval", 3)):
            rows = [{"prompt": f"scratch of {n} mm", "completion": f"verdict {n % 3}"} for n in range(count)]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (self.project / "data" / f"{name}.jsonl").write_text(text)
        eval_file = self.project / "data" / "eval.jsonl"
        (self.project / "edgekit.yaml").write_text(
            f"project: line-3\nbase: {json.dumps(base)}\n"
            f"data: {{train: data/train.jsonl, eval: {json.dumps(str(eval_file))}}}\n"
            f"gate: {{min_gain: -100}}\n{settings}"
        )

    def run(self, *commands: str) -> None:
        """Run commands one after the other, in one process: each would import torch anew."""
        done = subprocess.run(
            [sys.executable, "-c", _RUN, *commands],
            cwd=self.project,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def written(self) -> Iterator[Path]:
        for path in sorted(self.project.rglob("*")):
            if path.is_file() and path.relative_to(self.project).parts[0] not in MADE_FROM:
                yield path

    def tells(self, path: Path) -> list[str]:
        """What of this machine stands in a file, in UTF-8 or UTF-16, as it is or as JSON or a URL has it."""
        content = path.read_bytes()
        words = [
            MARK,
            "Línea 3",
            "L\\u00ednea",
            "L%C3%ADnea",
            str(self.root),
            sys.prefix,
            str(Path(__file__).parents[2]),
        ]
        host = socket.gethostname()
        words += [host] if len(host) > 4 else []
        found = [word for word in words if any(word.encode(code) in content for code in ("utf-8", "utf-16-le"))]
        return found + [match.decode() for match in re.findall(rb"edgekit-(?:export|evaluate|builder)-\w{6,}", content)]


@pytest.fixture
def workstation(tmp_path: Path, tiny_chat_base: Path) -> Workstation:
    return Workstation(tmp_path, tiny_chat_base)


def _adapter(**settings: object) -> str:
    known = {"rank": 4, "max_steps": 2, "batch_size": 4, "base_precision": "fp32"} | settings
    return f"adapters: {{small: {json.dumps(known)}}}\n"


def test_no_file_tells_of_the_machine_that_made_it(workstation: Workstation) -> None:
    base = str(workstation.root / f"{MARK}-models" / "tiny-chat")
    workstation.write(_adapter() + "export: {quantize: F16}\n", base)
    workstation.run(
        "edgekit train",
        "edgekit export",
        "edgekit export --mode merged --output dist/merged",
        "edgekit merge",
        "edgekit evaluate --limit 2 --output scores.json",
        "edgekit evaluate --artifact dist/line-3 --output device.json",
        "edgekit-runtime bench dist/line-3 --quick --threads 1 --prompt-tokens 8 --output bench.json",
    )
    names = {path.relative_to(workstation.project).as_posix() for path in workstation.written()}
    assert {
        *("adapters/small/README.md", "adapters/small/run.json", "adapters/small/adapter_config.json"),
        *("dist/line-3/manifest.json", "dist/line-3/report/report.json", "dist/line-3/base/model.gguf"),
        *("dist/merged/base/model.gguf", "dist/line-3-small-merged/tokenizer_config.json"),
        *("scores.json", "device.json", "bench.json"),
    } <= names
    assert {path.name: told for path in workstation.written() if (told := workstation.tells(path))} == {}
    rows = json.loads((workstation.project / "scores.json").read_text())["samples"]
    assert [row["where"] for row in rows] == ["data/eval.jsonl:1", "data/eval.jsonl:2"]
    proof = json.loads((workstation.project / "dist/line-3/report/report.json").read_text())
    assert [row["where"] for row in proof["adapters"][0]["rows"]] == [f"data/eval.jsonl:{n}" for n in (1, 2, 3)]


def test_a_search_would_find_what_it_looks_for(workstation: Workstation) -> None:
    """The test above means something."""
    for number, text in enumerate((str(workstation.project), f"{MARK}-user", sys.prefix)):
        file = workstation.project / f"{number}.bin"
        file.write_bytes(b"\0\xff" + text.encode() + b"\0")
        assert workstation.tells(file)


def test_no_file_of_an_onnx_bundle_or_a_site_tells_of_it(
    workstation: Workstation, request: pytest.FixtureRequest
) -> None:
    pytest.importorskip("onnx_ir", reason="the extra is not installed: pip install 'edgekit[onnx]'")
    shutil.move(workstation.root / f"{MARK}-models" / "tiny-chat", workstation.project / "tiny-chat")
    workstation.write(_adapter() + "export: {format: onnx, quantize: fp32}\n", "tiny-chat")
    workstation.run("edgekit train", "edgekit export")
    written = [path for path in workstation.written() if "tiny-chat" not in path.parts]
    assert any(path.suffix == ".onnx_adapter" for path in written)
    assert {path.name: told for path in written if (told := workstation.tells(path))} == {}
    record = json.loads((workstation.project / "adapters" / "small" / "run.json").read_text())
    assert record["base"] == "tiny-chat"
