"""What an adapter knows of the requests that are for it: a linear head over features of a text.

Each adapter of a bundle with ``auto`` brings a head of its own, so one that is installed later joins in, and one that
is removed leaves.  A head gives the log-odds that a text is for its adapter; its threshold is folded into ``bias``, so
0 is where a text begins to be for nobody.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgekit_runtime.errors import InputError, shown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ROUTE_SCHEMA = "edgekit.route/1"
NO_ADAPTER = TO_BASE, REFUSE = "base", "refuse"  # fallbacks that are no adapter's name
WORDS = 2048  # counts of hashed words
MOST_WIDTH = 1 << 15  # numbers of a base's embedding
MOST_SIGNS = 8192  # of a text are read, half from each end
MOST_BIAS = 1e4
STEM = 5  # the start of a word that stands for its inflected forms
_WORD = re.compile(r"\w+")
_MEND = "export the adapter again"


@dataclass(frozen=True)
class Route:
    """Who answers a request that named nobody.

    Attributes:
        adapter: its name; None for the bare base.
        confidence: the calibrated probability that this is right, 0 to 1.
        fallback: whether the text seemed to be for none of the adapters.
    """

    adapter: str | None
    confidence: float
    fallback: bool

    def as_json(self) -> dict[str, Any]:
        """As answers tell it; the bare base is "base"."""
        return {
            "adapter": self.adapter or TO_BASE,
            "confidence": round(self.confidence, 4),
            "fallback": self.fallback,
        }


@dataclass(frozen=True, eq=False)
class Head:
    """Log-odds = features @ weights + bias.

    Attributes:
        weights: [WORDS + width of the base's embedding]; [WORDS] where the engine's embedding can't be read.
        bias: the threshold is folded in.
    """

    weights: NDArray[np.float32]
    bias: float

    def as_json(self) -> dict[str, Any]:
        """As a manifest entry or adapter file holds it; :func:`read_head` reads it back."""
        data = self.weights.astype("<f2").tobytes()
        return {
            "schema": ROUTE_SCHEMA,
            "width": len(self.weights) - WORDS,
            "weights": base64.b64encode(data).decode(),
            "bias": self.bias,
        }


def read_head(document: Any, where: str) -> Head:
    """A head from a manifest or a file, which anybody may have written.

    Raises:
        InputError: it is none, of another version or size, or holds what are no numbers.
    """
    import numpy as np

    if not isinstance(document, Mapping) or document.get("schema") != ROUTE_SCHEMA:
        found = document.get("schema") if isinstance(document, Mapping) else None
        raise InputError(
            f"{where} has schema {shown(str(found))}, not {ROUTE_SCHEMA}", "update edgekit-runtime, or export again"
        )
    width, text, bias = (document.get(name) for name in ("width", "weights", "bias"))
    if type(width) is not int or not 0 <= width <= MOST_WIDTH:
        raise InputError(f"{where}: width is no whole number from 0 to {MOST_WIDTH}", _MEND)
    if isinstance(bias, bool) or not isinstance(bias, int | float) or not abs(bias) <= MOST_BIAS:  # NaN neither
        raise InputError(f"{where}: bias is no number from -{MOST_BIAS:g} to {MOST_BIAS:g}", _MEND)
    size = 2 * (WORDS + width)
    if not isinstance(text, str) or len(text) != 4 * math.ceil(size / 3):
        raise InputError(f"{where}: weights doesn't hold {WORDS + width} numbers", _MEND)
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InputError(f"{where}: weights is no base64", _MEND) from None
    if len(data) != size:
        raise InputError(f"{where}: weights doesn't hold {WORDS + width} numbers", _MEND)
    weights = np.frombuffer(data, "<f2").astype(np.float32)
    if not np.isfinite(weights).all():
        raise InputError(f"{where}: weights holds what are no numbers", _MEND)
    if not weights.any():
        raise InputError(f"{where}: all weights are 0", _MEND)
    return Head(weights, float(bias))


def bounded(text: str) -> str:
    """What is read of a text: all of it, or both ends of a long one."""
    half = MOST_SIGNS // 2
    return text if len(text) <= MOST_SIGNS else f"{text[:half]} {text[-half:]}"


def word_counts(text: str) -> NDArray[np.float32]:
    """Counts of hashed words, pairs of neighbours and starts of words, [WORDS], of length 1; 0 without words."""
    import numpy as np

    words = ["#" if word.isdigit() else word for word in _WORD.findall(text.lower())]
    parts = Counter(words)
    parts.update(f"{one} {two}" for one, two in itertools.pairwise(words))
    parts.update(f"{word[:STEM]}-" for word in words if len(word) > STEM)
    counts = np.zeros(WORDS, np.float32)
    for part, count in parts.items():
        place = zlib.crc32(part.encode("utf-8", "replace"))
        # The top bit is no part of the place: what collides cancels out as often as it adds up.
        counts[place % WORDS] += (1 + math.log(count)) * (1 if place >> 31 else -1)
    return unit(counts)


def unit(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """A vector at length 1; one of zeros as it is."""
    import numpy as np

    length = float(np.linalg.norm(values))
    return values / np.float32(length) if length else values


def user_text(messages: Iterable[Mapping[str, Any]]) -> str:
    """What is read of a conversation: all that the user has said.

    System prompts are the adapters' own affair, and answers were given by one of them.
    """
    texts: list[str] = []
    for message in messages:
        if not isinstance(message, Mapping) or message.get("role") != "user":
            continue
        content = message.get("content")
        parts = content if isinstance(content, list) else [{"text": content}]
        for part in parts:
            text = part.get("text") if isinstance(part, Mapping) else None
            if isinstance(text, str):
                texts.append(text)
    return "\n".join(texts)


def choose(features: NDArray[np.float32], heads: Mapping[str, Head], fallback: str | None) -> Route:
    """The adapter whose head is surest, or the fallback where none is over 0.

    Confidence is the softmax over the log-odds of all heads and the 0 of nobody.

    Raises:
        InputError: the features are no numbers.
    """
    import numpy as np

    names = list(heads)
    odds = np.array([0.0] + [float(features @ heads[name].weights) + heads[name].bias for name in names])
    if not np.isfinite(odds).all():
        raise InputError("the features of this text are no numbers", "copy or export the bundle again")
    shares = np.exp(odds - odds.max())
    best = int(odds.argmax())
    confidence = float(shares[best] / shares.sum())
    return Route(names[best - 1] if best else fallback, confidence, not best)
