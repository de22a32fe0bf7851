"""What an engine opens: where a base's files are, and how it keeps what it computes of requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.manifest import F16
from edgekit_runtime.formats.onnx_base import MIXED_FILE, VOCABULARY_FILE


@dataclass(frozen=True)
class BaseFiles:
    """``model`` is what the engine opens; ``parts`` lie beside it, by name; ``projector`` reads images for it.

    ``kv_cache`` is the type of its KV cache.
    """

    engine: str
    model: Path
    parts: Mapping[str, Path] = field(default_factory=dict)
    projector: Path | None = None
    kv_cache: str = F16

    @property
    def header(self) -> Path:
        """The GGUF that has tokeniser, template and what adapters may change: the model itself where it is one."""
        return self.parts.get(VOCABULARY_FILE, self.model)

    @property
    def size(self) -> int:
        """Bytes of what the engine loads for one sequence."""
        files = [self.model, *(path for name, path in self.parts.items() if name != MIXED_FILE)]
        return sum(path.stat().st_size for path in files)

    def as_arguments(self) -> list[str]:
        """For the command line of another process."""
        projector = [] if self.projector is None else [f"={self.projector}"]  # a part without a name
        named = [self.engine, self.kv_cache, str(self.model)]
        return [*named, *(f"{name}={path}" for name, path in self.parts.items()), *projector]

    @classmethod
    def from_arguments(cls, arguments: Sequence[str]) -> BaseFiles:
        """What :meth:`as_arguments` gave."""
        engine, kv_cache, model, *parts = arguments
        pairs = [part.partition("=") for part in parts]
        files = {name: Path(path) for name, _, path in pairs}
        projector = files.pop("", None)
        return cls(engine, Path(model), files, projector, kv_cache)

    def part(self, name: str) -> Path:
        """A file beside the model.

        Raises:
            InputError: the base has none of that name.
        """
        if name not in self.parts:
            raise InputError(f"the base {self.model} has no {name}", "export it again")
        return self.parts[name]
