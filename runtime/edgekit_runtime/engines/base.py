"""What the runtime asks of an engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Tokens of KV cache that are set aside unless told otherwise: a device's memory is small, contexts are large.
DEFAULT_CONTEXT = 4096


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen: greedily at temperature 0, else from the seeded, truncated distribution.

    Attributes:
        temperature: divides the logits.
        top_k: only the k most likely tokens; 0 for all.
        top_p: only the most likely tokens that together have this probability.
        seed: of the random draw.
        grammar: GBNF that the answer has to follow, or None.
    """

    temperature: float = 0.0
    top_k: int = 40
    top_p: float = 0.95
    seed: int = 0
    grammar: str | None = None


class Engine(Protocol):
    """One loaded base; adapters are loaded once and chosen per call.  Not thread-safe."""

    context: int
    threads: int

    def load_adapter(self, name: str, path: Path) -> None:
        """Load an adapter file under ``name``; raises InputError when the engine refuses it."""

    def unload_adapter(self, name: str) -> None:
        """Free a loaded adapter."""

    def select(self, adapter: str | None) -> None:
        """Switch to a loaded adapter, or to the bare base."""

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool = True) -> list[int]:
        """Text to token ids."""

    def piece(self, token: int) -> bytes:
        """The bytes that a token stands for; special tokens stand for none."""

    def is_end(self, token: int) -> bool:
        """Whether a token ends the generation."""

    def generate(self, prompt: Sequence[int], sampling: Sampling) -> Iterator[int]:
        """Prefill ``prompt``, then yield one token after another, the ending token included, without end."""

    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Logits after each of ``tokens``, [len(tokens), vocabulary], under the selected adapter."""

    def info(self) -> dict[str, Any]:
        """Name, version and build of the engine."""

    def close(self) -> None:
        """Free everything."""
