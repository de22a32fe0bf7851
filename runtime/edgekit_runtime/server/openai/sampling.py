"""How an answer's tokens are chosen, in the spellings of OpenAI, vLLM and llama.cpp's server."""

from __future__ import annotations

from typing import Any

from edgekit_runtime.engines.base import MOST_BIAS
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.sampling_defaults import LEAST_REPETITION, MOST_PENALTY, MOST_REPETITION
from edgekit_runtime.prompts.bounds import check_biases
from edgekit_runtime.server.fields import Fields

ALL_TOKENS = 0  # top_k
LARGEST_SEED = 2**32 - 1
LONGEST_ID = 12  # digits of a token's id


def read_sampling(fields: Fields) -> dict[str, Any]:
    """The arguments of Runtime.stream that say how tokens are chosen.

    Raises:
        InputError: a value of the wrong kind.
    """
    return {
        "temperature": fields.number("temperature", float, 0),
        "top_k": fields.count("top_k", or_else=ALL_TOKENS),
        "top_p": fields.number("top_p", float, 0, 1),
        "min_p": fields.number("min_p", float, 0, 1),
        "seed": _seed(fields),
        "repetition_penalty": fields.either(
            "repetition_penalty",  # vLLM's name
            "repeat_penalty",  # llama.cpp's
            lambda name: fields.number(name, float, LEAST_REPETITION, MOST_REPETITION),
        ),
        "repeat_last_n": fields.count("repeat_last_n", or_else=-1),
        "frequency_penalty": fields.number("frequency_penalty", float, -MOST_PENALTY, MOST_PENALTY),
        "presence_penalty": fields.number("presence_penalty", float, -MOST_PENALTY, MOST_PENALTY),
        "logit_bias": _biases(fields),
        "ignore_eos": fields.flag("ignore_eos") is True,
        "min_tokens": fields.number("min_tokens", int, 0),
    }


def several(options: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """The same request so often, with the seeds that follow its own; fresh ones where it has none."""
    seed = options["seed"]
    return [options | {"seed": None if seed is None else (seed + add) % (LARGEST_SEED + 1)} for add in range(count)]


def _seed(fields: Fields) -> int | None:
    """The seed; None for a fresh one, which -1 asks for."""
    seed = fields.count("seed", or_else=-1, most=LARGEST_SEED)
    return None if seed == -1 else seed


def _biases(fields: Fields) -> dict[str, float] | None:
    """By token id, as text."""
    given = fields.object("logit_bias")
    if not given:
        return None
    check_biases(len(given))
    each = Fields(given)
    if not all(name.isascii() and name.isdigit() and len(name) < LONGEST_ID for name in given):
        raise InputError("logit_bias has a name that is no token id", 'send {"ID": -100}, say')
    return {name: each.number(name, float, -MOST_BIAS, MOST_BIAS) or 0.0 for name in given}
