"""The ``edgekit-runtime`` command: what a device needs."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit_runtime.cli.agent import add_agent
from edgekit_runtime.cli.arguments import ALLOW_SPECIAL, CA, KV_CACHE, NO_LOOKAHEAD, filled, number, whole
from edgekit_runtime.cli.parser import Program, print_json, what_to_run
from edgekit_runtime.cli.serve import add_serve
from edgekit_runtime.cli.tools import call_lines, tool_options
from edgekit_runtime.errors import InputError, UsageError, one_line
from edgekit_runtime.files.strict_json import strict_json
from edgekit_runtime.formats.sampling_defaults import LEAST_REPETITION, MOST_PENALTY, MOST_REPETITION
from edgekit_runtime.hints import nearest
from edgekit_runtime.machine import MOST_THREADS

if TYPE_CHECKING:
    from edgekit_runtime.formats.images import Picture
    from edgekit_runtime.store import Store

IMAGE_QUESTION = "Describe the image."  # when an image comes without a prompt
STDIN = "-"
MIB = 1024**2

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    version = importlib.metadata.version("edgekit-runtime")
    program = Program("edgekit-runtime", "Run one base model with many adapters on this device.", version)
    _add_run(program)
    add_serve(program)
    _add_adapters(program)
    add_agent(program)
    _add_doctor(program)
    add_bench(program, "edgekit-runtime", _bench)
    return program.main(arguments)


def _add_run(program: Program) -> None:
    parser = program.command(
        "run",
        "answer a prompt (from --prompt or stdin)",
        'edgekit-runtime run dist/line-3 --adapter inspection --prompt "part: bracket; scratch 0.4 mm"\n'
        "  edgekit-runtime run dist/camera --image part.jpg",
        _run,
    )
    add = parser.add_argument
    add("bundle", type=Path, nargs="?", help="bundle folder or .tar")
    add("--store", type=Path, metavar="DIR", help="device store in the place of a bundle")
    add("--adapter", help="adapter name, base for none, or auto to have one chosen (default: the bundle's default)")
    add("--prompt", help="the prompt; read from stdin when left out")
    add(
        "--image", action="append", default=[], metavar="FILE", help="image to ask about, - for stdin (can be repeated)"
    )
    add("--max-tokens", type=whole(), help="longest answer")
    add("--temperature", type=number(0), help="0 is greedy, the default")
    add("--top-k", type=whole(0), help="sample from the k likeliest tokens")
    add("--top-p", type=number(0, most=1), help="sample from the likeliest tokens of this total probability")
    add("--min-p", type=number(0, most=1), help="sample from tokens with this share of the likeliest one's probability")
    add(
        "--repetition-penalty",
        type=number(LEAST_REPETITION, most=MOST_REPETITION),
        help="over 1: what was said becomes less likely (1)",
    )
    add(
        "--frequency-penalty",
        type=number(-MOST_PENALTY, most=MOST_PENALTY),
        help="the same for each time that the answer has it (0)",
    )
    add(
        "--presence-penalty",
        type=number(-MOST_PENALTY, most=MOST_PENALTY),
        help="the same once for what the answer has (0)",
    )
    add("--seed", type=whole(0), help="same seed, same answer")
    add(
        "--stop", type=filled, action="append", default=[], metavar="TEXT", help="end the answer here (can be repeated)"
    )
    add("--schema", type=Path, metavar="FILE", help="JSON schema that the answer has to follow")
    add("--regex", type=filled, metavar="PATTERN", help="regular expression that the whole answer has to match")
    add("--grammar", type=Path, metavar="FILE", help="GBNF or Lark grammar that the answer has to follow")
    add("--choice", type=filled, action="append", metavar="TEXT", help="a text the answer may be (can be repeated)")
    add("--tools", type=Path, metavar="FILE", help="functions that the model may call: a JSON list as OpenAI has it")
    add("--tool-choice", type=filled, metavar="WHICH", help="auto (the default), none, required, or a function's name")
    add("--stream", action="store_true", help="print the answer as it comes")
    add("--threads", type=whole(1, MOST_THREADS), help="default: physical cores")
    add("--context", type=whole(), help="tokens of prompt and answer together")
    add("--kv-cache", **KV_CACHE)
    add("--no-lookahead", action="store_true", help=NO_LOOKAHEAD)
    add("--allow-special", action="store_true", help=ALLOW_SPECIAL)


def _run(arguments: argparse.Namespace) -> None:
    from edgekit_runtime.formats.manifest import AUTO
    from edgekit_runtime.runtime import Runtime

    if arguments.stream and arguments.json:
        raise UsageError("--stream and --json exclude each other", "use one of them")
    subject = what_to_run(arguments)
    _check_adapter(subject, arguments.adapter)
    images = [_image(each) for each in arguments.image]
    if images and arguments.prompt is None:
        arguments.prompt = IMAGE_QUESTION
    prompt = _prompt(arguments.prompt)
    schema = _read_schema(arguments.schema)
    tools = tool_options(arguments.tools, arguments.tool_choice)
    grammar = None if arguments.grammar is None else _read_text(arguments.grammar)
    options = {
        "threads": arguments.threads,
        "context": arguments.context,
        "kv_cache": arguments.kv_cache,
        "lookahead": not arguments.no_lookahead,
        "allow_special": arguments.allow_special,
    }
    without = _refused(subject) if arguments.adapter == AUTO else ()
    with Runtime(subject, **options, probe=True, without=without) as runtime:
        if arguments.adapter is None and runtime.manifest.default_adapter is None and runtime.manifest.adapters:
            names = ", ".join(each.name for each in runtime.manifest.adapters)
            log.warning("no adapter is the default here, so the bare base answers; --adapter takes %s", names)
        stream = runtime.stream(
            prompt,
            adapter=arguments.adapter,
            max_tokens=arguments.max_tokens,
            temperature=arguments.temperature,
            top_k=arguments.top_k,
            top_p=arguments.top_p,
            min_p=arguments.min_p,
            repetition_penalty=arguments.repetition_penalty,
            frequency_penalty=arguments.frequency_penalty,
            presence_penalty=arguments.presence_penalty,
            seed=arguments.seed,
            stop=arguments.stop,
            schema=schema,
            regex=arguments.regex,
            grammar=grammar,
            choice=arguments.choice,
            image=images or None,
            **tools,
        )
        if stream.route is not None:
            found = stream.route.as_json()
            log.warning("auto: %s answers (%.0f %% sure)", found["adapter"], 100 * found["confidence"])
        for piece in stream:
            if arguments.stream:
                print(piece, end="", flush=True)
        assert stream.result is not None  # the loop has run to the end
        if arguments.json:
            print_json(stream.result.as_dict())
        else:
            text, calls = stream.result.text, call_lines(stream.result.tool_calls)
            shown = "" if arguments.stream else text
            print(f"{shown}\n" if text or not calls else "", calls, sep="", end="")


def _check_adapter(subject: Path, name: str | None) -> None:
    """Look for an adapter before an engine is loaded, where the manifest can be read without unpacking.

    One that is refused in the store would end this process.
    """
    from edgekit_runtime.formats.bundle import read_manifest
    from edgekit_runtime.formats.manifest import AUTO
    from edgekit_runtime.runtime import BASE
    from edgekit_runtime.store import Store, is_store

    store = Store(subject) if is_store(subject) else None
    if name in (BASE, AUTO) or not subject.is_dir() or (name is None and store is None):
        return
    manifest = store.bundle().manifest if store else read_manifest(subject)
    wanted = name or manifest.default_adapter
    if wanted is None:
        return
    parts = manifest.subject(wanted).scales
    for entry in manifest.adapters:  # the catalogue says what a stack lacks
        why = store and entry.name in parts and store.refusals.why(entry.digest, manifest.base.digest, manifest.engine)
        if why:
            raise InputError(f"adapter {entry.name} is set aside: {why}", "install it again, or --adapter base")


def _refused(subject: Path) -> list[str]:
    """Digests of adapters that may not answer in a store: nothing may choose them."""
    from edgekit_runtime.store import Store, is_store

    if not is_store(subject):
        return []
    store = Store(subject)
    manifest = store.bundle().manifest
    base, engine = manifest.base.digest, manifest.engine
    return [each.digest for each in manifest.adapters if store.refusals.why(each.digest, base, engine)]


def _image(given: str) -> Picture:
    from edgekit_runtime.formats.images import MAX_FILE_BYTES, read_picture

    if given != STDIN:
        return read_picture(given)
    return read_picture(sys.stdin.buffer.read(MAX_FILE_BYTES + 1), "the image on stdin")


def _prompt(given: str | None) -> str:
    if given is None:
        if sys.stdin is None or sys.stdin.isatty():
            raise UsageError("there is no prompt", "give --prompt, or pipe it in")
        try:
            given = sys.stdin.buffer.read().decode("utf-8").removesuffix("\n")
        except UnicodeDecodeError as error:
            raise InputError(f"the prompt on stdin is not UTF-8 (byte {error.start})", "convert it") from None
    if not given.strip():
        raise InputError("the prompt is empty", "pass a non-empty prompt")
    return given


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no readable text ({error})", "give a file in UTF-8") from None


def _read_schema(path: Path | None) -> dict[str, Any] | bool | None:
    if path is None:
        return None
    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no readable JSON schema ({error})", "give a file of valid JSON in UTF-8") from None
    if not isinstance(schema, dict | bool):
        raise InputError(f"{path} is no JSON schema: it has to be an object", 'begin with {"type": "object"}, say')
    return schema


def _add_adapters(program: Program) -> None:
    parser = program.command(
        "adapters",
        "what is installed on this device: list, install, activate, remove, rollback, gc, trust",
        "edgekit-runtime adapters install line-3.tar --store /var/lib/edgekit\n"
        "  edgekit-runtime adapters install oci://registry.example/line-3:1.4\n"
        "  edgekit-runtime adapters activate inspection 1.1.0",
        _adapters,
    )
    add = parser.add_argument
    add("action", choices=("list", "install", "activate", "remove", "rollback", "gc", "trust"))
    add(
        "what",
        nargs="?",
        help="install: bundle, adapter file, or oci://HOST/REPOSITORY:TAG or @sha256:HEX; "
        "activate, remove: adapter name; trust: public key",
    )
    add("version", nargs="?", help="activate, remove: its version (default: the newest; all)")
    add("--store", type=Path, metavar="DIR", help="device store (default: the platform's data folder)")
    add("--allow-downgrade", action="store_true", help="install: take an older version too")
    add("--ca", type=Path, metavar="FILE", help=CA)


def _adapters(arguments: argparse.Namespace) -> None:
    from edgekit_runtime.store import Store, default_store

    action, what, version = arguments.action, arguments.what, arguments.version
    if (what is None) == (action in ("install", "activate", "remove", "trust")):
        raise UsageError(f"adapters {action} {'needs to know what' if what is None else 'takes no name'}", "see --help")
    store = Store(arguments.store or default_store(), create=action in ("install", "trust"))
    said: list[str] = []
    notes: list[str] = []
    if action == "install":
        said = _install(store, what, arguments, notes)
    elif action == "activate":
        store.activate(what, version, tell=notes.append)
    elif action == "remove":
        store.remove(what, version)
    elif action == "trust":
        store.trust(Path(what))
        said = ["from now on only what a trusted key has signed is installed"]
    elif action == "rollback":
        said = [f"generation {store.rollback()} is active again"]
    elif action == "gc":
        count, size = store.gc()
        said = [f"removed {count} files, {size / MIB:.1f} MiB"]
    _show_store(store, said, notes, as_json=arguments.json)


def _install(store: Store, what: str, arguments: argparse.Namespace, notes: list[str]) -> list[str]:
    from edgekit_runtime.registry.reference import Reference, is_reference

    options = {"allow_downgrade": arguments.allow_downgrade, "tell": notes.append}
    if not is_reference(what):
        if arguments.ca is not None:
            raise UsageError("--ca is for registries", "leave it out")
        return [f"active: {each}" for each in store.install(what, **options)]
    from edgekit_runtime.registry.source import RegistryBundle  # its HTTP client is for registries alone

    source = RegistryBundle(Reference.parse(what), ca=arguments.ca)
    installed = store.install_pulled(source, **options)
    said = f"{source.reference}: {source.downloaded / MIB:.1f} MiB downloaded"
    return [said, *(f"active: {each}" for each in installed)]


def _show_store(store: Store, said: list[str], notes: list[str], *, as_json: bool) -> None:
    generation, adapters = store.current(), store.installed()
    if as_json:
        document = {
            "store": str(store.root),
            "generation": generation and generation.number,
            "base": generation and vars(generation.manifest.base),
            "adapters": list(map(vars, adapters)),
            "notes": notes,
        }
        print_json(document)
        return
    for line in [*said, *(f"warning: {note}" for note in notes)]:
        print(line)
    if generation is None:
        print(f"{store.root} is empty")
        return
    base = generation.manifest.base
    print(f"generation {generation.number}, base {base.family} {base.quantization}")
    for each in adapters:
        mark = "*" if each.active else " "
        size = f"{each.virtual_tokens} virtual tokens" if each.virtual_tokens else f"rank {each.rank}"
        print(f"{mark} {each.name:24} {each.version:12} {size}{'' if each.verified else '  unverified'}")
        if each.refused is not None:
            print(f"  {'':24} does not answer: {one_line(each.refused)}")


def _add_doctor(program: Program) -> None:
    parser = program.command(
        "doctor", "is this device fit to run?", "edgekit-runtime doctor --store /var/lib/edgekit", _doctor
    )
    parser.add_argument("bundle", type=Path, nargs="?", help="bundle folder or .tar to try")
    parser.add_argument("--store", type=Path, metavar="DIR", help="device store to try")


def _doctor(arguments: argparse.Namespace) -> None:
    from edgekit_runtime.cli.doctor import examine

    if arguments.bundle is not None and arguments.store is not None:
        raise UsageError("a bundle and --store exclude each other", "use one of them")
    checks = []
    for check in examine(arguments.bundle or arguments.store):
        checks.append(check)
        if not arguments.json:
            print(f"{'ok  ' if check.ok else 'FAIL'}  {check.what}: {check.found}", flush=True)
    if arguments.json:
        print_json([vars(check) for check in checks])
    failed = [check.what for check in checks if not check.ok]
    if failed:
        raise InputError(f"not fit to run ({', '.join(failed)})", "mend what the lines marked FAIL say")


def add_bench(program: Program, name: str, run: Any) -> argparse.ArgumentParser:
    """Add the ``bench`` command; both command lines have it."""
    parser = program.command(
        "bench",
        "measure a bundle on this machine, or compare two results",
        f"{name} bench dist/line-3 --output a.json\n  {name} bench compare a.json b.json",
        run,
    )
    add = parser.add_argument
    add(
        "what",
        nargs="*",
        metavar="BUNDLE | compare A.json B.json",
        help="a bundle folder or .tar, a device store, or two results",
    )
    add("--output", type=Path, metavar="FILE", help="write the result as JSON")
    add("--repeats", type=whole(), default=5, help="repetitions of each measurement (5)")
    add("--prompt-tokens", type=whole(), default=256, help="length of the prompt (256)")
    add("--decode-tokens", type=whole(), default=64, help="tokens decoded after it (64)")
    add("--threads", type=whole(1, MOST_THREADS), help="default: physical cores")
    add("--kv-cache", **KV_CACHE)
    add("--image-size", default="640x480", metavar="WxH", help="images of a caption bundle, pixels (640x480)")
    add("--quick", action="store_true", help="measure everything once, as a check")
    return parser


def bench_command(arguments: argparse.Namespace) -> dict[str, Any] | None:
    """Run ``bench`` and print; returns the measurements, or None after a comparison."""
    from edgekit_runtime.files.atomic import check_writable

    if arguments.output is not None:
        check_writable(arguments.output)
    from edgekit_runtime.bench import compare, read_bench, run_bench

    if arguments.what[:1] == ["compare"]:
        if len(arguments.what) != 3:
            raise UsageError("compare takes two result files", "bench compare A.json B.json")
        a, b = (read_bench(Path(each)) for each in arguments.what[1:])
        text = compare(a, b)
        print_json({"a": a, "b": b}) if arguments.json else print(text)
        return None
    if len(arguments.what) != 1:
        meant = len(arguments.what) == 3 and nearest(arguments.what[0], ["compare"])
        raise UsageError("bench takes one bundle", f"{'did you mean' if meant else 'or'}: bench compare A.json B.json")
    document = run_bench(
        Path(arguments.what[0]),
        repeats=arguments.repeats,
        prompt_tokens=arguments.prompt_tokens,
        decode_tokens=arguments.decode_tokens,
        threads=arguments.threads,
        kv_cache=arguments.kv_cache,
        quick=arguments.quick,
        image_size=arguments.image_size,
    )
    show_bench(document, arguments)
    return document


def show_bench(document: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Print a result and write it to --output; in this order, as writing may fail."""
    from edgekit_runtime.bench import table
    from edgekit_runtime.files.atomic import write_whole

    print_json(document) if arguments.json else print(table(document))
    if arguments.output is not None:
        write_whole(arguments.output, (strict_json(document, indent=1) + "\n").encode())


def _bench(arguments: argparse.Namespace) -> None:
    bench_command(arguments)
