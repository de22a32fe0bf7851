"""How an answer's tokens are chosen, in the spellings of OpenAI, vLLM and llama.cpp's server."""

from __future__ import annotations

from typing import Any

from edgekit_runtime.server.fields import Fields

ALL_TOKENS = 0  # top_k
LARGEST_SEED = 2**32 - 1


def read_sampling(fields: Fields) -> dict[str, Any]:
    """The arguments of Runtime.stream that say how tokens are chosen.

    Raises:
        InputError: a value of the wrong kind.
    """
    return {
        "temperature": fields.number("temperature", float, 0),
        "top_k": fields.count("top_k", or_else=ALL_TOKENS),
        "top_p": fields.number("top_p", float, 0),
        "seed": read_seed(fields),
    }


def read_seed(fields: Fields) -> int | None:
    """The seed; None for a fresh one, which -1 asks for.

    Raises:
        InputError: it is none.
    """
    seed = fields.count("seed", or_else=-1, most=LARGEST_SEED)
    return None if seed == -1 else seed
