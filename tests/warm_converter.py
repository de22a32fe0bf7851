"""Conversions without the start of a converter: a process that has imported what converters import forks for each.

What runs in the child is in_converter.py itself, with the arguments, folder and environment that it is given.  Commands
that tests start as processes of their own start converters as users' do.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

IMPORTED = (
    "torch",
    "conversion",  # before gguf: it brings its own
    "convert_hf_to_gguf",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.auto.configuration_auto",
    "transformers.models.llama.configuration_llama",
)


class WarmConverter:
    """Runs commands as ``subprocess.run`` would; the process behind it starts with the first one."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def __call__(self, command: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run a converter's command in a child of the warm process."""
        python, isolated, script, *arguments = command
        if self._process is None:
            self._process = subprocess.Popen(
                [python, isolated, __file__, arguments[0]],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            asked = {
                "words": [script, *arguments],
                "environment": dict(environment),
                "cwd": str(Path.cwd()),
                "said": folder,
            }
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
            code = int(self._process.stdout.readline())
            out, err = ((Path(folder) / name).read_text() for name in ("out", "err"))
        return subprocess.CompletedProcess(list(command), code, out, err)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.communicate()


def _serve(tools: str) -> None:
    """In the warm process: fork for each line of stdin, and say the child's exit code."""
    import importlib

    here = sys.path[:]
    sys.path.insert(0, tools)
    for name in IMPORTED:
        importlib.import_module(name)
    sys.path[:] = here
    for line in iter(sys.stdin.readline, ""):
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            _carry_out(**asked)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def _carry_out(words: list[str], environment: dict[str, str], cwd: str, said: str) -> None:
    """In the child: be the process that the command would have started."""
    for number, name in ((0, os.devnull), (1, f"{said}/out"), (2, f"{said}/err")):
        os.dup2(os.open(name, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.argv = words
    code = 0
    try:
        runpy.run_path(words[0], run_name="__main__")
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):
            sys.stderr.write(ended.code + "\n")
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _serve(sys.argv[1])
