"""Trying an adapter where a crash harms nobody.

``python -m edgekit_runtime.server.canary ADAPTER ENGINE BASE [NAME=PART …]`` is the process for it.  What a file says
is checked by our own reader first; this is for what only the engine can show.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from edgekit_runtime.base_files import BaseFiles
from edgekit_runtime.engines import Sampling, generate
from edgekit_runtime.errors import EdgekitError, InputError

PROMPT = (1, 2, 3, 4)
TOKENS = 4
CONTEXT = 32
SECONDS = 60.0


async def try_adapter(base: BaseFiles, adapter: Path) -> None:
    """Load an adapter in a process of its own, and let it answer.

    Raises:
        InputError: the engine refuses it, crashes over it, hangs, or computes no numbers with it.
    """
    command = [sys.executable, "-m", "edgekit_runtime.server.canary", str(adapter), *base.as_arguments()]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL, stderr=pipe)
    try:
        _, said = await asyncio.wait_for(process.communicate(), SECONDS)
    except TimeoutError:
        raise InputError(f"the engine hangs over {adapter}", "export it again") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode == InputError.exit_code:
        raise InputError(said.decode(errors="replace").strip().splitlines()[-1])
    if process.returncode:
        raise InputError(f"the engine crashes over {adapter}", "export it again")


def main(adapter: str, *base: str) -> int:
    """The child: exit code 3 and a line on stderr when the adapter is no good."""
    import numpy as np

    from edgekit_runtime.engines.opening import open_engine

    try:
        engine = open_engine(BaseFiles.from_arguments(base), context=CONTEXT, threads=1)
        engine.load_adapter("canary", Path(adapter))
        engine.select((("canary", 1.0),))
        answer = generate(engine, PROMPT, Sampling())
        for _ in range(TOKENS):
            next(answer)
            if not np.isfinite(engine.row(0)).all():
                raise InputError(f"{adapter} makes the base compute what is no number", "train or export it again")
    except EdgekitError as error:
        sys.stderr.write(f"{error}\n")
        return InputError.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
