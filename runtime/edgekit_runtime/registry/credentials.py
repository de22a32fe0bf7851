"""Who we are for a registry: what ``docker login`` (or ``oras``, ``skopeo``, ``podman``) has left in config.json."""

from __future__ import annotations

import base64
import binascii
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit_runtime.errors import InputError, TargetError, one_line, shown
from edgekit_runtime.files.regular import read_small
from edgekit_runtime.files.strict_json import json_object

CONFIG_FOLDER = "DOCKER_CONFIG"  # the environment's variable
_CONFIG_BYTES = 1024 * 1024
_HELPER_SECONDS = 60
_NOT_FOUND = "credentials not found"  # as all helpers say it
_TOKEN_USER = "<token>"  # in the place of a name where the secret is an identity token


@dataclass(frozen=True)
class Login:
    """A name and its secret; the secret is in no text of this object."""

    user: str
    secret: str

    def __repr__(self) -> str:
        return f"Login({self.user!r})"

    @property
    def basic(self) -> str:
        """The value of the header Authorization."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.secret}".encode()).decode("ascii")


def login_for(host: str) -> Login | None:
    """The login for a registry; None where there is none.

    Raises:
        InputError: config.json can't be read.
        TargetError: a credential helper failed.
    """
    path = _config_file()
    config = _read(path)
    helper = _mapping(config, "credHelpers").get(host) or config.get("credsStore")
    if isinstance(helper, str):
        return _ask_helper(helper, host)
    for name, entry in _mapping(config, "auths").items():
        if _host_of(name) == host and isinstance(entry, dict):
            return _login(entry, path, host)
    return None


def _config_file() -> Path:
    folder = os.environ.get(CONFIG_FOLDER)
    try:
        return (Path(folder) if folder else Path.home() / ".docker") / "config.json"
    except RuntimeError:  # a user without a home
        return Path("config.json")


def _read(path: Path) -> dict[str, Any]:
    try:
        content = read_small(path, _CONFIG_BYTES)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror})", "check its permissions") from None
    config = json_object(content)
    if config is None:
        raise InputError(f"{path} is no JSON object", "log in again: `docker login HOST`")
    return config


def _mapping(config: dict[str, Any], name: str) -> dict[str, Any]:
    value = config.get(name)
    return value if isinstance(value, dict) else {}


def _host_of(name: str) -> str:
    """Older clients write addresses: https://HOST/v1/."""
    return re.sub(r"^https?://", "", name).partition("/")[0]


def _login(entry: dict[str, Any], path: Path, host: str) -> Login | None:
    if entry.get("identitytoken"):
        raise _no_identity_tokens(host)
    user, secret, packed = entry.get("username"), entry.get("password"), entry.get("auth")
    if isinstance(packed, str) and packed:
        try:
            user, _, secret = base64.b64decode(packed, validate=True).decode().rstrip("\0").partition(":")
        except (binascii.Error, ValueError):
            problem = f"{path}: the login for {host} is no base64 of NAME:SECRET"
            raise InputError(problem, "log in again: `docker login HOST`") from None
    return Login(user, secret) if isinstance(user, str) and isinstance(secret, str) and user else None


def _ask_helper(name: str, host: str) -> Login | None:
    program = shutil.which(f"docker-credential-{name}") if re.fullmatch(r"[A-Za-z0-9._-]+", name) else None
    if program is None:
        problem = f"the credential helper {shown(name)} is not installed"
        raise TargetError(problem, "install docker-credential-NAME, or log in without it")
    try:
        done = subprocess.run([program, "get"], input=host.encode(), capture_output=True, timeout=_HELPER_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TargetError(f"{program} failed ({one_line(str(error))})", "log in again: `docker login HOST`") from None
    said = done.stdout.decode(errors="replace").strip()
    if done.returncode:
        if _NOT_FOUND in said:
            return None
        why = one_line(said or done.stderr.decode(errors="replace").strip())
        raise TargetError(f"{program} failed ({why})", "log in again: `docker login HOST`")
    answer = json_object(said) or {}
    user, secret = answer.get("Username"), answer.get("Secret")
    if not isinstance(user, str) or not isinstance(secret, str):
        raise TargetError(f"{program} gave no name and secret", "log in again: `docker login HOST`")
    if user == _TOKEN_USER:
        raise _no_identity_tokens(host)
    return Login(user, secret)


def _no_identity_tokens(host: str) -> InputError:
    problem = f"the login for {host} is an identity token, which edgekit doesn't use"
    return InputError(problem, "log in with a name and an access token: `docker login HOST --username NAME`")
