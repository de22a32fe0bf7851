"""Greedy answers of exported files, through the very runtime that devices use."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from edgekit.data import Row
from edgekit_runtime.runtime import BASE, Runtime

log = logging.getLogger(__name__)


class Artifact:
    """A bundle, opened by the device runtime."""

    def __init__(self, bundle: Path) -> None:
        """Open the bundle.

        Raises:
            InputError: it doesn't verify.
        """
        self.runtime = Runtime(bundle)

    def __enter__(self) -> Artifact:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.runtime.close()

    def answers(
        self,
        rows: Sequence[Row],
        system: str | None,
        max_tokens: int,
        *,
        adapter: str | None,
        template_arguments: Mapping[str, Any] | None = None,
    ) -> list[str]:
        """One greedy answer a row; ``adapter`` None asks the bare base.

        ``system`` and ``template_arguments`` are what the trained adapter had; the bundle's own copies are used when
        the adapter runs.
        """
        answers: list[str] = []
        for number, row in enumerate(rows, 1):
            messages = list(row.messages)
            if adapter is None and system is not None and messages[0]["role"] != "system":
                messages.insert(0, {"role": "system", "content": system})
            result = self.runtime.generate(
                messages=messages,
                adapter=adapter or BASE,
                max_tokens=max_tokens,
                temperature=0.0,
                image=row.images,
                tools=row.tools,
                template_arguments=template_arguments if adapter is None else None,
            )
            answers.append(result.text.strip())
            if number % 20 == 0 or number == len(rows):
                log.info("answered %d of %d rows", number, len(rows))
        return answers
