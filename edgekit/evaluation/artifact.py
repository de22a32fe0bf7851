"""Greedy answers of exported files, through the very runtime that devices use."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from edgekit.data import Row
from edgekit.evaluation.finite import not_finite
from edgekit_exporters.progress import staged
from edgekit_runtime.runtime import AS_TEXT, BASE, Runtime
from edgekit_runtime.runtime.options import AS_IT_IS

DEVICE = "the device engine"


class Artifact:
    """A bundle, opened by the device runtime."""

    def __init__(self, bundle: Path) -> None:
        """Open the bundle.

        Raises:
            InputError: it doesn't verify.
        """
        self.runtime = Runtime(bundle, lookahead=False)

    def __enter__(self) -> Artifact:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.runtime.close()

    def owner(self, adapter: str | None) -> str | None:
        """Whose answers these are: of an adapter, of one that is merged into the base, or (None) of the bare base."""
        merged = self.runtime.manifest.base.merged
        return adapter if adapter not in (None, BASE) else merged[0] if merged else None

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

        Raises:
            InputError: what the engine computes are no numbers.
        """
        answers: list[str] = []
        asked = "the base" if adapter in (None, BASE) else adapter
        for row in staged(rows, f"asking {asked} on the device engine", len(rows)):
            messages = list(row.messages)
            if adapter is None and system is not None and messages[0]["role"] != "system":
                messages.insert(0, {"role": "system", "content": system})
            stream = self.runtime.stream(
                messages=messages,
                adapter=adapter or BASE,
                max_tokens=max_tokens,
                **AS_IT_IS,
                image=row.images,
                logprobs=0,
                tools=row.tools,
                tool_choice=AS_TEXT,
                template_arguments=template_arguments if adapter is None else None,
            )
            answers.append("".join(stream).strip())
            if not all(score.logprob is not None and math.isfinite(score.logprob) for score in stream.scores):
                raise not_finite(DEVICE, self.owner(adapter), row)
        return answers
