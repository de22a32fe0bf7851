"""The virtual tokens of a prompt adapter, which llama.cpp decodes as embeddings."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit_runtime.engines.cells import cell_ids
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.gguf import GgufFile
from edgekit_runtime.formats.prompt_adapter import read_rows, rows_tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class VirtualTokens:
    """See :class:`~edgekit_runtime.engines.base.Frame`: rows that stand before a prompt."""

    encoded = True

    def __init__(self, rows: NDArray[np.float32]) -> None:
        """Take rows, [virtual tokens, width]; the ids of their cells follow from their values."""
        self._rows = rows
        self.cells = cell_ids(f"virtual {hashlib.sha256(rows.tobytes()).hexdigest()}", len(rows))

    @classmethod
    def read(cls, gguf: GgufFile, *, width: int) -> VirtualTokens:
        """Those of a file.

        Raises:
            InputError: its rows are not as wide as the model reads them.
        """
        tensor = rows_tensor(gguf)
        if tensor.shape[0] != width:
            raise InputError(
                f"{gguf.path} has rows of {tensor.shape[0]} numbers, and the base reads {width}",
                "use the adapter with its own base",
            )
        return cls(read_rows(Path(gguf.path), tensor))

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return int(self._rows.nbytes)

    def embeddings(self) -> NDArray[np.float32]:
        """The rows."""
        return self._rows
