"""Where the chunks of a prompt end, on which the bits of its KV cache can depend."""

from __future__ import annotations

from edgekit_runtime.engines import Engine
from edgekit_runtime.scheduler.request import Request

SHARED_CHUNK = 64  # prompt tokens between two tokens of the others
ALONE_CHUNK = 256  # with one sequence: nobody waits but the watchdog, for whom a slow board has to end its steps
LEAST_CHUNK = 2  # a matrix times one column is summed in another order than times several


def longest_chunk(engine: Engine) -> int:
    """Tokens that go through the model in one step at most."""
    return SHARED_CHUNK if engine.sequences > 1 else ALONE_CHUNK


def chunk_end(request: Request, start: int, longest: int) -> int:
    """Where the chunk of a prompt ends that begins at ``start``: where adapters begin to work, where the preamble ends,
    at an edge of an image, or after ``longest`` tokens.
    """
    preamble = request.preamble if request.preamble - start >= LEAST_CHUNK else 0
    ends = (len(request.prompt.tokens), preamble, request.works_from, *request.prompt.edges())
    end = min(end for end in ends if end > start)
    left = end - start - longest
    return end if left <= 0 else start + longest - max(LEAST_CHUNK - left, 0)
