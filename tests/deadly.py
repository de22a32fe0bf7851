"""An engine that dies over an adapter: really, with SIGABRT, in the process that has it.

llama.cpp's does when the adapter is selected, ONNX Runtime's when it answers, maybe with others in one step.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

CODE = """
import os, sys, time
from pathlib import Path

MODULE, LIST = {module!r}, Path({list!r})
if any(MODULE == each for each in sys.orig_argv):
    from edgekit_runtime.engines.llama.engine import LlamaEngine

    select = LlamaEngine.select

    def die(self, stack):
        if any(digest in name for digest in LIST.read_text().split() for name, _ in stack):
            {act}
        select(self, stack)

    LlamaEngine.select = die

    from edgekit_runtime.engines.onnx.engine import OnnxEngine

    decode = OnnxEngine.decode

    def die_answering(self, parts):
        stacks = [self._stack if part.stack is None else part.stack for part in parts if len(part.tokens) == 1]
        names = [name for stack in stacks for name, _ in stack]
        if any(digest in name for digest in LIST.read_text().split() for name in names):
            {act}
        decode(self, parts)

    OnnxEngine.decode = die_answering
"""
WORKER, CANARY = "edgekit_runtime.server.worker", "edgekit_runtime.intake.canary"


class Deadly:
    """Adapters that end processes which run ``module``."""

    def __init__(self, folder: Path, module: str, monkeypatch: pytest.MonkeyPatch, *, act: str = "os.abort()") -> None:
        """Hold for processes that are started from now on; ``act`` is what they do."""
        folder.mkdir()
        self._list = folder / "deadly.txt"
        self.over()
        (folder / "sitecustomize.py").write_text(CODE.format(module=module, list=str(self._list), act=act))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))

    def over(self, *digests: str) -> None:
        """These are, and no others."""
        self._list.write_text("\n".join(digests))
