"""Where the benchmark runs: one function a kind of target, all with the same JSON (``edgekit.bench/1``)."""

from __future__ import annotations

import argparse
import json
import shlex
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgekit.targets.devices import device_profile
from edgekit.targets.ssh import connect, parse_target
from edgekit_runtime.bench import BENCH_SCHEMA, run_bench
from edgekit_runtime.errors import TargetError, UsageError
from edgekit_runtime.hints import did_you_mean

Document = dict[str, Any]
PREFIX = "/opt/edgekit"
_NOTHING = """
if [ ! -d "$f/store" ]; then
    echo "error: there is nothing to measure: edgekit deploy BUNDLE first" >&2
    exit 1
fi
"""


def bench_on(target: str, options: argparse.Namespace) -> Document:
    """Run the benchmark on a target.

    Args:
        target: ``local``, or ``KIND:…`` with a kind of ``TARGETS``.
        options: of the command line: what, repeats, prompt_tokens, decode_tokens, threads, kv_cache, quick, image_size,
            ssh.

    Raises:
        UsageError: no such kind of target, or not what it takes.
        TargetError: it can't be reached, has nothing to measure, or failed.
    """
    kind = target.partition(":")[0]
    if kind not in TARGETS:
        raise UsageError(f"there is no target {target!r}", f"{did_you_mean(kind, TARGETS)}: see --help")
    document = TARGETS[kind](target, options)
    if document.get("schema") != BENCH_SCHEMA:
        raise TargetError(f"{target} measured with another version of edgekit", "deploy again, or use that version")
    document["target"] = {"kind": kind, "name": target, "emulated": kind == "qemu"}
    return document


def _local(target: str, options: argparse.Namespace) -> Document:
    return run_bench(
        _bundle(target, options),
        repeats=options.repeats,
        prompt_tokens=options.prompt_tokens,
        decode_tokens=options.decode_tokens,
        threads=options.threads,
        kv_cache=options.kv_cache,
        quick=options.quick,
        image_size=options.image_size,
    )


def _over_ssh(target: str, options: argparse.Namespace) -> Document:
    """What is deployed there is measured: the very files and settings that answer."""
    if options.what:
        raise UsageError(
            "on a device what is deployed is measured", f"edgekit deploy {options.what[0]} --target {target}"
        )
    with connect(parse_target(target), options.ssh) as device:
        command = shlex.join(["runtime/bin/edgekit-runtime", "bench", "store", "--json", *_words(options)])
        said = device.run(f'{device.target.choose_folder()}\n{_NOTHING}\ncd "$f"\n{command}')
    return _parsed(said, target)


def _in_qemu(target: str, options: argparse.Namespace) -> Document:
    """Installed offline on an emulated board.  Always quick: only that it works can be seen there."""
    from edgekit.targets.emulation import EmulatedBoard
    from edgekit.targets.offline_kit import write_offline
    from edgekit.targets.runtime_build import build_runtime
    from edgekit_runtime.formats.bundle import open_bundle

    profile = device_profile(target.partition(":")[2])
    bundle = _bundle(target, options)
    options.quick = True
    with tempfile.TemporaryDirectory(prefix="edgekit-board-") as folder:
        board = EmulatedBoard(profile, Path(folder))
        with open_bundle(bundle) as opened:
            write_offline(opened, build_runtime(profile), board.path("/tmp/kit.tar"))
        board.run(f"cd /tmp && tar xf kit.tar && sh kit/install.sh --prefix {PREFIX}")
        words = shlex.join(["bench", f"{PREFIX}/store", "--json", *_words(options)])
        return _parsed(board.run(f"{PREFIX}/runtime/bin/edgekit-runtime {words}"), target)


def _in_browser(target: str, options: argparse.Namespace) -> Document:
    """A page in a browser of this machine."""
    from edgekit.site.bench import run_browser_bench

    if options.kv_cache is not None:
        raise UsageError("a page has the KV cache that its bundle names", "export with --kv-cache, or leave it out")
    return run_browser_bench(
        _bundle(target, options),
        browser=target.partition(":")[2] or "chromium",
        repeats=1 if options.quick else options.repeats,
        prompt_tokens=options.prompt_tokens,
        decode_tokens=options.decode_tokens,
        threads=options.threads,
    )


# A new kind of target is a function here.
TARGETS: dict[str, Callable[[str, argparse.Namespace], Document]] = {
    "local": _local,
    "ssh": _over_ssh,
    "qemu": _in_qemu,
    "browser": _in_browser,
}


def _bundle(target: str, options: argparse.Namespace) -> Path:
    if len(options.what) != 1:
        raise UsageError(f"the target {target} takes one bundle", f"edgekit bench dist/line-3 --target {target}")
    return Path(options.what[0])


def _words(options: argparse.Namespace) -> list[str]:
    words = ["--repeats", str(options.repeats), "--prompt-tokens", str(options.prompt_tokens)]
    words += ["--decode-tokens", str(options.decode_tokens)]
    words += ["--image-size", options.image_size]
    words += ["--threads", str(options.threads)] if options.threads is not None else []
    words += ["--kv-cache", options.kv_cache] if options.kv_cache is not None else []
    return words + (["--quick"] if options.quick else [])


def _parsed(said: str, target: str) -> Document:
    try:
        document: Document = json.loads(said)
    except ValueError as error:
        raise TargetError(f"{target} gave no result ({error})", "run again with --debug") from None
    return document
