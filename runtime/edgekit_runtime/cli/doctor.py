"""Is this device fit to run?  Each check says what it found, and what to do when it isn't right."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit_runtime import machine
from edgekit_runtime.engines import Prompt
from edgekit_runtime.errors import EdgekitError, InputError
from edgekit_runtime.formats.adapter import AdapterFacts
from edgekit_runtime.intake.canary import OTHER_CPU, ending, engine_environment
from edgekit_runtime.runtime import BASE, Runtime
from edgekit_runtime.store import Store, is_store

if TYPE_CHECKING:
    from edgekit_runtime.engines.trial import Trial

MIB = 1024 * 1024
LEAST_FREE_MB = 64  # for generations, logs and a new adapter
CANARY_PROMPT, CANARY_TOKENS = "Say something.", 8
SILENT_SECONDS = 300.0  # for loading a large base from a slow card


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; ``found`` says what is wrong and how to mend it when it isn't ``ok``."""

    what: str
    ok: bool
    found: str


def examine(subject: Path | None) -> Iterator[Check]:
    """Look at the machine and the engine, and with ``subject`` (a bundle or store) try the base and each adapter."""
    yield _machine()
    yield _attempt("engine", _engine)
    if subject is None:
        return
    yield _room(subject)
    if is_store(subject):
        files = _attempt("files", lambda: _files(Store(subject)))
        yield files
        if not files.ok:
            return
    yield from _in_a_process(subject)


def _in_a_process(subject: Path) -> Iterator[Check]:
    """The checks that run the engine, where its crash is one more thing that was found."""
    command = [sys.executable, "-m", "edgekit_runtime.cli.doctor", str(subject)]
    at_work, done = "bundle", False
    with tempfile.TemporaryFile() as problems:
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=problems, env=engine_environment()
        ) as process:
            assert process.stdout is not None
            watch = _Watch(process)
            try:
                for line in process.stdout:
                    watch.again()
                    document = json.loads(line)
                    at_work = document.get("trying", at_work)
                    done = document.get("done", False)
                    if "what" in document:
                        yield Check(document["what"], ok=document["ok"], found=document["found"])
                process.wait()
            finally:
                watch.stop()
                process.kill()  # where nobody wants to hear the rest
        problems.seek(0)
        crash = ending(process.returncode, problems.read())
    if watch.bitten or process.returncode or not done:
        how = (
            "it hangs" if watch.bitten else f"the engine crashes ({crash})" if process.returncode else "it says nothing"
        )
        yield Check(at_work, ok=False, found=f"{how}: {OTHER_CPU}")


class _Watch:
    """Kills a process that says nothing for long."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.bitten = False
        self._start()

    def again(self) -> None:
        """It has said something."""
        self.stop()
        self._start()

    def stop(self) -> None:
        """No more."""
        self._timer.cancel()

    def _start(self) -> None:
        self._timer = threading.Timer(SILENT_SECONDS, self._bite)
        self._timer.daemon = True
        self._timer.start()

    def _bite(self) -> None:
        self.bitten = True
        self._process.kill()


def main(subject: str) -> int:
    """The process for it: one line of JSON for each check, and one before what may crash."""
    try:
        runtime = Runtime(Path(subject))
    except EdgekitError as error:
        _say({"done": True} | vars(Check("bundle", ok=False, found=str(error))))
        return 0
    with runtime:
        for check in _checks(runtime):
            _say(vars(check))
    _say({"done": True})
    return 0


def _say(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def _checks(runtime: Runtime) -> Iterator[Check]:
    manifest = runtime.manifest
    base = manifest.base
    yield Check("bundle", ok=True, found=f"{manifest.name} {manifest.version}, {base.family} {base.quantization}")
    yield _memory(manifest.requires.memory_mb)
    for name in [BASE, *(entry.name for entry in manifest.subjects)]:
        _say({"trying": f"answer of {name}"})
        yield from _tried(runtime, name)


def _files(store: Store) -> str:
    """A bundle is read and verified when it is opened; a store is not."""
    store.verify()
    return "each is what it was when it was installed"


def _machine() -> Check:
    facts = machine.describe()
    flags = " ".join(facts["flags"]) or "no vector instructions that the engine has kernels for"
    return Check("machine", ok=True, found=f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_mb']} MiB, {flags}")


def _engine() -> str:
    from edgekit_runtime.engines.llama.library import engine_info

    info = engine_info()
    return f"{info['version']}, built with {' '.join(info['cpu_features']) or 'no CPU features'}"


def _room(subject: Path) -> Check:
    there = next(each for each in (subject, *subject.absolute().parents) if each.exists())
    free = shutil.disk_usage(there).free // MIB
    hint = "" if free >= LEAST_FREE_MB else ": free some space, or run `edgekit-runtime adapters gc`"
    return Check("storage", ok=free >= LEAST_FREE_MB, found=f"{free} MiB free{hint}")


def _memory(needed_mb: int) -> Check:
    """``requires.memory_mb`` is an estimate for the default context: less than that is told, but no failure."""
    import psutil

    available = psutil.virtual_memory().available // MIB
    enough = available >= needed_mb
    advice = "" if enough else ": a smaller --context needs less"
    return Check("memory", ok=True, found=f"{available} MiB available, about {needed_mb} MiB needed{advice}")


def _tried(runtime: Runtime, name: str) -> Iterator[Check]:
    """What the engine computes with an adapter or the bare base, and whether an adapter changes anything."""
    try:
        prompt = _prompt(runtime, name)
        trial = runtime.trial(prompt, name, tokens=CANARY_TOKENS)
    except (EdgekitError, OSError) as error:
        yield Check(f"answer of {name}", ok=False, found=str(error))
        return
    speed = f"{trial.tokens} tokens, the first after {trial.first_ms:.0f} ms, {trial.tokens_per_second:.0f} tokens/s"
    yield Check(f"answer of {name}", ok=True, found=speed)
    if name != BASE:
        yield _attempt(f"effect of {name}", lambda: _effect(runtime, name, prompt, trial))


def _prompt(runtime: Runtime, name: str) -> Prompt:
    """A question as an adapter is asked it, with what activates it where it needs that."""
    prompt = runtime.encode([{"role": "user", "content": CANARY_PROMPT}], name)
    if name == BASE:
        return prompt
    part = next(iter(runtime.manifest.subject(name).scales))  # all adapters of a stack have the same invocation
    call = AdapterFacts.read(runtime.adapter_path(part)).invocation
    return prompt.followed_by([*call, *prompt.tokens[-1:]]) if call else prompt


def _effect(runtime: Runtime, name: str, prompt: Prompt, trial: Trial) -> str:
    bare = runtime.trial(prompt, BASE, tokens=1)
    if not trial.differs_from(bare):
        raise InputError(
            "it changes nothing, its logits are the base's to the bit",
            f"export it again from an adapter that is trained, or `edgekit-runtime adapters remove {name}`",
        )
    return "its logits are others than the base's"


def _attempt(what: str, action: Callable[[], str]) -> Check:
    try:
        return Check(what, ok=True, found=action())
    except (EdgekitError, ImportError, OSError) as error:
        return Check(what, ok=False, found=str(error))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
