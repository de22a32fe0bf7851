"""Running the service until it is told to stop."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from edgekit_runtime.errors import InputError, UsageError
from edgekit_runtime.runtime import Runtime
from edgekit_runtime.server.app import make_app

DRAIN_SECONDS = 30  # what is being answered may end after SIGTERM


def serve(runtime: Runtime, *, host: str = "127.0.0.1", port: int = 8080, api_key_file: Path | None = None) -> None:
    """Serve until SIGTERM or Ctrl-C; requests that are being answered end first.

    Args:
        runtime: answers.
        host: address to listen on.
        port: TCP port; 0 for any that is free.
        api_key_file: a file with the key that clients have to send; needed for any address but loopback.

    Raises:
        UsageError: an address that others can reach, without a key.
        InputError: an empty or unreadable key file.
    """
    import uvicorn

    key = None if api_key_file is None else _read_key(api_key_file)
    if key is None and not _is_loopback(host):
        raise UsageError(f"others can reach {host}, and there is no API key", "give --api-key-file, or use 127.0.0.1")
    app = make_app(runtime, api_key=key)
    uvicorn.run(app, host=host, port=port, log_level="info", timeout_graceful_shutdown=DRAIN_SECONDS)


def _read_key(path: Path) -> str:
    try:
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the key file {path} can't be read ({error})", "put one line of text in it") from None
    if not key:
        raise InputError(f"the key file {path} is empty", "put one line of text in it")
    return key


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
