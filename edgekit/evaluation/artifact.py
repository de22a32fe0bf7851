"""Greedy answers of exported files, through the very runtime that devices use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from edgekit.data import Row
from edgekit_exporters.progress import staged
from edgekit_runtime.runtime import BASE, Runtime


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

    def answers(self, rows: Sequence[Row], system: str | None, max_tokens: int, *, adapter: str | None) -> list[str]:
        """One greedy answer a row; ``adapter`` None asks the bare base.

        ``system`` is what the trained adapter had; the bundle's own copy is used when the adapter runs.
        """
        answers: list[str] = []
        asked = "the base" if adapter in (None, BASE) else adapter
        for row in staged(rows, f"asking {asked} on the device engine", len(rows)):
            messages = list(row.messages)
            if adapter is None and system is not None and messages[0]["role"] != "system":
                messages.insert(0, {"role": "system", "content": system})
            result = self.runtime.generate(
                messages=messages,
                adapter=adapter or BASE,
                max_tokens=max_tokens,
                temperature=0.0,
                image=row.images,
            )
            answers.append(result.text.strip())
        return answers
