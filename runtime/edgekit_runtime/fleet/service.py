"""Whether a service on this device answers with what was installed."""

from __future__ import annotations

import time
from typing import Any

import urllib3
from urllib3.exceptions import HTTPError

from edgekit_runtime.errors import UsageError
from edgekit_runtime.files.strict_json import json_object
from edgekit_runtime.formats.manifest import Manifest

_ASK_SECONDS, _PAUSE = 10.0, 0.5
_PATIENCE = 300.0  # seconds for a large base from a slow card


class Service:
    """A service of ``edgekit-runtime serve`` on the agent's store."""

    def __init__(self, url: str, key: str | None = None, *, patience: float = _PATIENCE) -> None:
        """Nothing is asked yet.

        Args:
            url: of the service.
            key: that it asks for.
            patience: seconds in which it has to answer with what is new.

        Raises:
            UsageError: the URL is none.
        """
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"--service {url} is no URL", "write http://127.0.0.1:8080")
        self._url, self._patience = url.rstrip("/"), patience
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._pool = urllib3.PoolManager(retries=False, timeout=_ASK_SECONDS)

    def problem(self, manifest: Manifest) -> str | None:
        """Wait until it answers with the base and all adapters of a generation; returns what is wrong if it doesn't."""
        expected = {entry.digest for entry in manifest.adapters}
        until = time.monotonic() + self._patience
        while True:
            problem = self._problem_now(manifest.base.digest, expected)
            if problem is None or time.monotonic() > until:
                return problem
            time.sleep(_PAUSE)

    def _problem_now(self, base: str, adapters: set[str]) -> str | None:
        try:
            response = self._pool.request("GET", f"{self._url}/status", headers=self._headers)
        except (HTTPError, OSError) as error:
            return f"the service at {self._url} does not answer ({type(error).__name__})"
        document = json_object(response.data) or {}
        if response.status != 200 or document.get("ready") is not True:
            return f"the service at {self._url} is not ready ({response.status})"
        bundle: Any = document.get("bundle") or {}
        its_base: Any = bundle.get("base") or {}
        models: Any = document.get("adapters") or []
        answering = {each.get("digest") for each in models if isinstance(each, dict) and "aside" not in each}
        if its_base.get("digest") != base or not adapters <= answering:
            return f"the service at {self._url} does not answer with what was installed"
        return None
