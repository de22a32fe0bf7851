"""Training rows of all parts of a combination, as many of each, as token ids."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgekit.combining.preflight import training_rows
from edgekit.data import Row
from edgekit.encoding.completions import default_reasoning
from edgekit.encoding.encoder import Encoded, Encoder
from edgekit.encoding.images import RowImages
from edgekit.project import Project
from edgekit.training.parts import FoundPart
from edgekit.training.prepared import row_limit
from edgekit_exporters.base import Base

HELD_OUT = 16  # rows of each part, at most, that tell when to stop
HELD_OUT_SHARE = 4  # of a part's rows, one in so many at most


@dataclass(frozen=True)
class Mixed:
    """Examples of all parts in turn.

    Attributes:
        train: to train on, as many of each part; where a part has too few, its own come over again.
        held_out: of other rows, as many of each part.
        encoder: of the last part.
    """

    train: list[Encoded]
    held_out: list[Encoded]
    encoder: Encoder


def mixed_examples(
    project: Project, parts: Sequence[FoundPart], base: Base, images: RowImages | None, count: int, seed: int
) -> Mixed:
    """At least ``count`` examples to train on, and those that are held out; the same ones for the same ``seed``.

    Each row is asked with the system prompt of its part, and learnt as in the part's training.

    Raises:
        InputError: as :func:`~edgekit.combining.preflight.training_rows`, or a row that can't be encoded.
    """
    rows = {part.name: training_rows(project, part.name) for part in parts}
    for each in rows.values():
        random.Random(seed).shuffle(each)
    kept = min(HELD_OUT, *(max(1, len(each) // HELD_OUT_SHARE) for each in rows.values()))
    train, held_out = [], []
    for part in parts:
        own, wanted = rows[part.name], -(-count // len(parts))
        encoder = Encoder(base.folder, images=images, reasoning=part.reasoning or default_reasoning(own))
        limit = row_limit(part.adapter, base, project.export.format)
        held_out.append(list(_examples(encoder, part, own[:kept], limit)))
        # a row is encoded when it is asked for: there may be thousands
        train.append(list(itertools.islice(itertools.cycle(_examples(encoder, part, own[kept:], limit)), wanted)))
    return Mixed(_in_turn(train), _in_turn(held_out), encoder)


def _examples(encoder: Encoder, part: FoundPart, rows: Sequence[Row], limit: int) -> Iterator[Encoded]:
    for row in rows:
        yield from encoder.encode(row, part.adapter.system, limit, every_turn=part.adapter.loss == "all")


def _in_turn(examples: Sequence[list[Encoded]]) -> list[Encoded]:
    """As many of each part."""
    return [each for turn in zip(*examples, strict=False) for each in turn]
