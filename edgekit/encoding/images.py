"""Images of rows, seen by the device's own engine.

Training and evaluation in torch take an image's embeddings from the projector file that devices load.  So scaling,
tiling, the tokens around an image and the encoder's rounding are the device's by construction.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgekit.project import Project
from edgekit_exporters.base import Base
from edgekit_exporters.gguf.base import base_gguf
from edgekit_exporters.gguf.connector import base_connector, encoder_gguf
from edgekit_exporters.gguf.projector import projector_gguf
from edgekit_runtime.engines import Prompt
from edgekit_runtime.engines.llama.images import open_images
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.bundle import file_digest
from edgekit_runtime.formats.images import read_picture
from edgekit_runtime.machine import decode_threads


class RowImages:
    """Embeddings of images, in one table for all of them."""

    def __init__(self, text: Path, projector: Path, connector: Tensor | None = None) -> None:
        """Open the projector.

        Args:
            text: the base's GGUF, for its vocabulary; its weights aren't loaded.
            projector: the base's mmproj file.
            connector: what makes embeddings of the projector's output, [width, inputs]; None when the projector does.

        Raises:
            InputError: llama.cpp refuses one of them.
        """
        self.connector = connector
        self.key = f"{projector.name} {file_digest(projector)} {connector is not None}"  # for caches
        self._images = open_images(projector, text, threads=decode_threads())
        self._layouts: dict[Path, list[int]] = {}
        self._rows: dict[int, int] = {}  # of the table, by cell
        self._embeddings: list[NDArray[np.float32]] = []
        self._table: Tensor | None = None

    def layout(self, path: Path) -> list[int]:
        """The tokens of an image, its cells as negative ids.

        Raises:
            InputError: the image can't be read.
        """
        if path not in self._layouts:
            prompt = Prompt.of(self._images.layout(read_picture(path)))
            for _, frame in prompt.frames:
                if frame.cells[0] not in self._rows:
                    first = len(self._rows)
                    self._rows |= {cell: first + at for at, cell in enumerate(frame.cells)}
                    self._embeddings.append(frame.embeddings())
                    self._table = None
            self._layouts[path] = prompt.tokens
        return self._layouts[path]

    def as_rows(self, ids: Sequence[int], vocabulary: int) -> list[int]:
        """Ids for a model with :class:`SeeingEmbedding`: cells come after the vocabulary."""
        return [each if each >= 0 else vocabulary + self._rows[each] for each in ids]

    @property
    def table(self) -> Tensor:
        """[cells, width], or with a connector [cells, its inputs], float32."""
        if self._table is None:
            self._table = torch.from_numpy(np.concatenate(self._embeddings))
        return self._table


class Connector(nn.Module):
    """The layer from encoder to text model.  No nn.Linear: that would get LoRA layers of its own."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, features: Tensor) -> Tensor:
        """[..., inputs] to embeddings [..., width]."""
        return nn.functional.linear(features.to(self.weight), self.weight)


class SeeingEmbedding(nn.Module):
    """Token embeddings, and those of images for ids beyond the vocabulary."""

    def __init__(self, tokens: nn.Module, vocabulary: int, images: RowImages) -> None:
        super().__init__()
        self.tokens = tokens
        if images.connector is not None:
            self.connector = Connector(images.connector)
        self._vocabulary, self._images = vocabulary, images

    @property
    def weight(self) -> Any:
        """Of the tokens."""
        return self.tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Ids [...] to embeddings [..., width]."""
        seen = ids >= self._vocabulary
        embeddings: Tensor = self.tokens(ids.masked_fill(seen, 0))
        if seen.any():
            table = self._images.table.to(embeddings.device)
            rows = table[(ids - self._vocabulary).clamp(min=0)]
            if self._images.connector is not None:
                rows = self.connector(rows)
            embeddings = torch.where(seen[..., None], rows.to(embeddings), embeddings)
        return embeddings


def row_images(project: Project, base: Base, *, connector: bool = False) -> RowImages | None:
    """Images for ``base`` with the projector that ``project`` deploys; None for a text project.

    With ``connector`` that is left to torch (see :func:`let_see`), and the device's engine does all before it.

    Raises:
        InputError: the base reads no images, can't be converted, or has a connector that isn't trained here.
    """
    if project.task != "caption":
        if connector:
            raise InputError("there is no connector to train in a text project", "take connector: true out")
        return None
    if base.vision is None:
        raise InputError(
            f"task is caption, and the base {base.name} reads no images", "use one that does, demo-vlm say"
        )
    text = base.gguf or base_gguf(base, "F16")  # at any precision: its vocabulary is all that is read
    if connector:
        return RowImages(text, encoder_gguf(base, project.export.projector), base_connector(base))
    return RowImages(text, projector_gguf(base, project.export.projector))


def let_see(model: Any, images: RowImages | None) -> Any:
    """A text model that takes ids of :meth:`RowImages.as_rows`."""
    if images is not None:
        model.set_input_embeddings(SeeingEmbedding(model.get_input_embeddings(), model.config.vocab_size, images))
    return model
