"""``edgekit-runtime serve``: its options, and the systemd unit that has the same ones."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edgekit_runtime.cli.arguments import ALLOW_SPECIAL, ANY_PORT, KV_CACHE, NO_LOOKAHEAD, number, whole
from edgekit_runtime.cli.parser import Program, what_to_run
from edgekit_runtime.errors import InputError, UsageError
from edgekit_runtime.machine import MOST_PARALLEL, MOST_THREADS

OPTIONS: dict[str, dict[str, Any]] = {
    "store": {"type": Path, "metavar": "DIR", "help": "device store in the place of a bundle"},
    "host": {"default": "127.0.0.1", "help": "address to listen on (default: this machine only)"},
    "port": {"type": whole(*ANY_PORT), "default": 8080, "help": "TCP port (8080)"},
    "api_key_file": {"type": Path, "metavar": "FILE", "help": "key that clients send; needed for any other address"},
    "image_files": {
        "type": Path,
        "metavar": "DIR",
        "help": "images may be file: URLs into this folder (default: data: only)",
    },
    "adapter_files": {
        "type": Path,
        "metavar": "DIR",
        "help": "adapters that are loaded over HTTP have to be in this folder (default: anywhere)",
    },
    "watch": {"type": Path, "metavar": "DIR", "help": "adapter files that are put here are live at once"},
    "parallel": {"type": whole(1, MOST_PARALLEL), "default": 4, "help": "requests answered at once (4)"},
    "queue": {"type": whole(), "default": 32, "help": "requests that may wait or run; more are refused (32)"},
    "request_timeout": {
        "type": number(above=0),
        "default": 600.0,
        "metavar": "SECONDS",
        "help": "for a whole answer (600)",
    },
    "adapter_memory": {
        "type": number(above=0),
        "metavar": "MB",
        "help": "memory for loaded adapters (default: no limit)",
    },
    "chat_memory": {
        "type": number(0),
        "default": 128.0,
        "metavar": "MB",
        "help": "memory for chats that wait for their next turn while others are answered (128; 0 for none)",
    },
    "prefix_memory": {
        "type": number(0),
        "default": 64.0,
        "metavar": "MB",
        "help": "memory for the KV cache of system prompts, and on disk again as much (64; 0 for none)",
    },
    "threads": {"type": whole(1, MOST_THREADS), "help": "default: physical cores"},
    "context": {"type": whole(), "help": "tokens of prompt and answer together, for each request"},
    "kv_cache": KV_CACHE,
    "cors": {
        "action": "append",
        "metavar": "ORIGIN",
        "help": "pages of this site may ask, https://app.example say; * for all (can be repeated; default: none)",
    },
    "no_lookahead": {"action": "store_true", "help": NO_LOOKAHEAD},
    "exact": {
        "choices": ("on", "off"),
        "default": "on",
        "help": "off: several requests at once and later turns are quicker, but answers may depend on others (on)",
    },
    "allow_special": {"action": "store_true", "help": ALLOW_SPECIAL},
}
WRITTEN_TO = ("store", "watch")  # folders that the service changes


def add_serve(program: Program) -> None:
    """Add the command."""
    parser = program.command(
        "serve", "answer over HTTP as OpenAI's API does", "edgekit-runtime serve dist/line-3 --port 8080", _serve
    )
    parser.add_argument("bundle", type=Path, nargs="?", help="bundle folder or .tar")
    for name, option in OPTIONS.items():
        parser.add_argument(_flag(name), **option)
    parser.add_argument("--verify", action="store_true", help="read a store's files first, and end if one has rotted")
    parser.add_argument(
        "--print-unit", action="store_true", help="print a systemd unit that runs this command, and end"
    )


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _serve(arguments: argparse.Namespace) -> None:
    if arguments.json:
        raise UsageError("serve prints no document", "leave --json out")
    if arguments.print_unit:
        print(_unit(arguments), end="")
        return
    folders = {
        "--watch": arguments.watch,
        "--image-files": arguments.image_files,
        "--adapter-files": arguments.adapter_files,
    }
    for name, folder in folders.items():
        made = name == "--watch" and folder is not None and not folder.exists()  # the service makes it
        if folder is not None and not made and not folder.is_dir():
            raise InputError(f"{name} {folder} is no folder", "give the folder of the files")
    from edgekit_runtime.server.serve import serve

    if arguments.verify and arguments.store is not None:
        from edgekit_runtime.store import Store

        Store(arguments.store).verify()
    memory = arguments.adapter_memory
    serve(
        what_to_run(arguments),
        host=arguments.host,
        port=arguments.port,
        api_key_file=arguments.api_key_file,
        watch=arguments.watch,
        image_files=arguments.image_files,
        adapter_files=arguments.adapter_files,
        queue=arguments.queue,
        timeout=arguments.request_timeout,
        threads=arguments.threads,
        context=arguments.context,
        parallel=arguments.parallel,
        kv_cache=arguments.kv_cache,
        adapter_memory=None if memory is None else int(memory * 1e6),
        chat_memory=int(arguments.chat_memory * 1e6),
        prefix_memory=int(arguments.prefix_memory * 1e6),
        lookahead=not arguments.no_lookahead,
        exact=arguments.exact == "on",
        allow_special=arguments.allow_special,
        cors=arguments.cors or [],
    )


def _unit(arguments: argparse.Namespace) -> str:
    from edgekit_runtime.server.serve import STOP_SECONDS
    from edgekit_runtime.server.systemd import unit

    subject = what_to_run(arguments).absolute()
    given = {name: value for name in OPTIONS if (value := getattr(arguments, name)) is not None}
    given = {name: value.absolute() if isinstance(value, Path) else value for name, value in given.items()}
    options = [] if arguments.bundle is None else [str(subject)]
    for name, value in given.items():
        if value is not False:
            for each in value if isinstance(value, list) else [value]:
                options += [_flag(name)] if each is True else [_flag(name), str(each)]
    options += ["--verify"] if arguments.verify else []
    writable = [given[name] for name in WRITTEN_TO if name in given]
    return unit(options, writable=writable, stop_seconds=STOP_SECONDS)
