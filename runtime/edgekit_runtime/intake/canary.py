"""Trying a base and adapters where a crash harms nobody, before they become active.

``python -m edgekit_runtime.intake.canary ENGINE BASE [NAME=PART …] -- [ADAPTER …]`` is the process for it.  What a
file says is checked by our own reader first (:mod:`~edgekit_runtime.intake.adapters`); this is for what only the
engine can show.  The process says one line of JSON before each file that it tries and one after it, so that it is
known which one made it crash.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit_runtime.errors import EdgekitError, InputError
from edgekit_runtime.formats.base_files import BaseFiles
from edgekit_runtime.formats.onnx_base import ENGINE as ONNX
from edgekit_runtime.intake.child_limits import OUT_OF_TIME, end_with_parent, limit_memory, limit_time

if TYPE_CHECKING:
    from edgekit_runtime.engines.base import Engine

PROMPT = (1, 2, 3, 4)
TOKENS = 4
CONTEXT = 32
SECONDS = 60.0  # for the base, and for each adapter
SLOWEST_READ = 10e6  # bytes a second, of a card: what a large base takes besides
# What a tokeniser may stumble over: every byte that UTF-8 has, spaces of all kinds, nothing, and much of the same.
TEXTS = (
    "",
    "".join(map(chr, range(0x100))),
    "\r\n\t  \u2028\u00a0 \u200b\ufeff",
    "検査 Prüfung 검사 \U0001f600\U000e0100 e\u0301",
    *(chr(start) for start in (0x7FF, 0x800, 0xD7FF, 0xE000, 0xFFFD, 0xFFFF, 0x10000, 0x3FFFF, 0x7FFFF, 0x10FFFF)),
    "".join(chr(number << 12 | 0x41) for number in range(1, 0x110) if number != 0xD),
    "x" * 5000,
)
SIDE = 64  # pixels of the image that a projector is tried with
ENGINE_PACKAGES = {ONNX: "onnxruntime", "llama.cpp": "llama-cpp-python"}
_ENGINE_MODULES = {ONNX: "onnxruntime"}
_LLAMA_MODULE = "llama_cpp"
_MEND = "train or export it again"
OTHER_CPU = "copy the base again, or install the engine that was built for this CPU"


def missing_engine(base: BaseFiles) -> str | None:
    """The engine's package where this machine doesn't have it, so that nothing can be tried."""
    module = _ENGINE_MODULES.get(base.engine, _LLAMA_MODULE)
    return None if importlib.util.find_spec(module) else module


def try_adapters(base: BaseFiles, adapters: Sequence[Path]) -> list[bool]:
    """Load a base and adapters in a process of its own, each adapter alone, and decode some tokens.

    Returns:
        For each adapter, whether any logit is another than the base's.

    Raises:
        InputError: the engine refuses one, crashes over it, hangs, computes what is no number, or says nothing.
    """
    with _started(base, adapters) as process:
        try:
            said, problems = process.communicate(timeout=time_limit(base, adapters))
        except subprocess.TimeoutExpired:
            process.kill()
            said, _ = process.communicate()
            raise _hangs(said, base) from None
        except BaseException:
            process.kill()
            raise
    return _judge(base, adapters, process.returncode, said, problems)


async def try_adapters_async(base: BaseFiles, adapters: Sequence[Path]) -> list[bool]:
    """The same without blocking the event loop; the process ends when this is cancelled."""
    import asyncio  # neither the child nor a command needs it, and it is most of what this imports

    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *_command(base, adapters), stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=engine_environment()
    )
    asked = asyncio.ensure_future(process.communicate())
    try:
        done, _ = await asyncio.wait([asked], timeout=time_limit(base, adapters))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    said, problems = await asked
    if not done:
        raise _hangs(said, base)
    return _judge(base, adapters, process.returncode, said, problems)


def _started(base: BaseFiles, adapters: Sequence[Path]) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    command = _command(base, adapters)
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=engine_environment())


def _command(base: BaseFiles, adapters: Sequence[Path]) -> list[str]:
    return [sys.executable, "-m", "edgekit_runtime.intake.canary", *base.as_arguments(), "--", *map(str, adapters)]


def engine_environment() -> dict[str, str]:
    """For processes in which an engine may crash: ggml runs a debugger then unless it is told not to."""
    return {**os.environ, "GGML_NO_BACKTRACE": "1"}


def ending(code: int, problems: bytes) -> str:
    """How a process ended that should not have: its signal, or the last line that it said."""
    if -code in set(signal.Signals):
        return signal.Signals(-code).name
    return last_line(problems) or f"exit code {code}"


def last_line(problems: bytes) -> str:
    """What a process said last."""
    return (problems.decode(errors="replace").strip().splitlines() or [""])[-1]


def time_limit(base: BaseFiles, adapters: Sequence[Path]) -> float:
    """Seconds that trying them may take."""
    size = sum(path.stat().st_size for path in _files(base) if path.exists())
    return SECONDS * (1 + len(adapters)) + size / SLOWEST_READ


def _files(base: BaseFiles) -> list[Path]:
    return [base.model, *base.parts.values(), *([base.projector] if base.projector else [])]


def _hangs(said: bytes, base: BaseFiles) -> InputError:
    return _refused("hangs over", said, base)


def _judge(base: BaseFiles, adapters: Sequence[Path], code: int | None, said: bytes, problems: bytes) -> list[bool]:
    """What a process that has ended says of each adapter."""
    if code == InputError.exit_code:
        raise InputError(last_line(problems))
    if code and -code in OUT_OF_TIME:
        raise _hangs(said, base)
    if code:
        raise _refused(f"crashes ({ending(code, problems)}) over", said, base)
    found = {each["tried"]: each["alive"] is True for each in _lines(said) if "tried" in each}
    if not {str(each) for each in (base.model, *adapters)} <= found.keys():
        raise _refused("says nothing about", said, base)
    return [found[str(each)] for each in adapters]


def _refused(what: str, said: bytes, base: BaseFiles) -> InputError:
    """Tells the file that was tried last, the base where none was."""
    tried = [str(each["trying"]) for each in _lines(said) if "trying" in each]
    last = tried[-1] if tried else str(base.model)
    return InputError(f"the engine {what} {last}", OTHER_CPU if last == str(base.model) else _MEND)


def _lines(said: bytes) -> list[dict[str, object]]:
    documents = []
    for line in said.splitlines():
        try:
            document = json.loads(line)
        except ValueError:  # cut short, or a library's
            continue
        if isinstance(document, dict):
            documents.append(document)
    return documents


def main(*arguments: str) -> int:
    """The child: exit code 3 and a line on stderr when the base or an adapter is no good."""
    end_with_parent()
    split = arguments.index("--")
    base, adapters = BaseFiles.from_arguments(arguments[:split]), arguments[split + 1 :]
    limit_time(time_limit(base, [Path(each) for each in adapters]))
    try:
        _try_all(base, adapters)
    except EdgekitError as error:
        sys.stderr.write(f"{error}\n")
        return InputError.exit_code
    return 0


def _try_all(base: BaseFiles, adapters: Sequence[str]) -> None:
    from edgekit_runtime.engines import BARE
    from edgekit_runtime.engines.opening import open_engine
    from edgekit_runtime.engines.trial import Trial, run_trial
    from edgekit_runtime.formats.adapter import AdapterFacts

    facts = {each: AdapterFacts.read(each) for each in adapters}
    calls = {each: found.invocation for each, found in facts.items()}
    longest = max((len(found.invocation) + (found.virtual_tokens or 0) for found in facts.values()), default=0)
    model = str(base.model)
    _say(trying=model)
    limit_memory(sum(path.stat().st_size for path in [*_files(base), *map(Path, adapters)] if path.exists()))
    engine = open_engine(base, context=CONTEXT + longest, threads=1)
    bare: dict[tuple[int, ...], Trial] = {}

    def of_base(call: tuple[int, ...]) -> Trial:
        """The base's, for the tokens that activate an adapter."""
        if call not in bare:
            bare[call] = run_trial(engine, (*PROMPT, *call, *PROMPT), BARE, tokens=TOKENS, who=f"the base {model}")
        return bare[call]

    of_base(())
    for text, add_special, parse_special in itertools.product(TEXTS, (True, False), (True, False)):
        engine.tokenize(text, add_special=add_special, parse_special=parse_special)
    if base.projector is not None:
        _try_projector(engine, base.projector)
    _say(tried=model, alive=True)
    for each, call in calls.items():
        _say(trying=each)
        expected = of_base(call)
        engine.load_adapter(each, Path(each))
        stack = ((each, 1.0),)
        found = run_trial(engine, (*PROMPT, *call, *PROMPT), stack, tokens=TOKENS, who=f"the base with {each}")
        _say(tried=each, alive=found.differs_from(expected))
        engine.unload_adapter(each)


def _try_projector(engine: Engine, projector: Path) -> None:
    """Look at one small image."""
    from edgekit_runtime.engines.llama.engine import LlamaEngine
    from edgekit_runtime.engines.trial import check_numbers
    from edgekit_runtime.formats.images import Picture

    if not isinstance(engine, LlamaEngine):
        return
    images = engine.images(projector)
    layout = images.layout(Picture(SIDE, SIDE, bytes(range(256)) * (SIDE * SIDE * 3 // 256)))
    frame = next((each for each in layout if not isinstance(each, int)), None)
    if frame is not None:
        check_numbers(frame.embeddings(), f"the projector {projector}")
    images.close()


def _say(**document: object) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
