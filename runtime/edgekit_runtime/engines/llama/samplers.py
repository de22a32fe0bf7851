"""How tokens are chosen: by llama.cpp's samplers, on every engine, so that the same seed draws the same tokens."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

from llama_cpp import llama_cpp as llama

from edgekit_runtime.engines.base import Sampling
from edgekit_runtime.engines.llama.vocabulary import LlamaVocabulary

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

CANDIDATE = [("id", "<i4"), ("logit", "<f4"), ("p", "<f4")]  # llama_token_data


def sampler_chain(sampling: Sampling) -> Any:
    """A chain of llama.cpp's samplers."""
    chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
    if sampling.temperature <= 0:
        steps = [llama.llama_sampler_init_greedy()]
    else:
        steps = [
            llama.llama_sampler_init_top_k(sampling.top_k),
            llama.llama_sampler_init_top_p(sampling.top_p, 1),
            llama.llama_sampler_init_temp(sampling.temperature),
            llama.llama_sampler_init_dist(sampling.seed),
        ]
    for step in steps:
        llama.llama_sampler_chain_add(chain, step)
    return chain


class LogitsSampler:
    """A choice among those tokens that the request's grammar allows, from logits of any engine."""

    def __init__(
        self, vocabulary: LlamaVocabulary, sampling: Sampling, row: Callable[[int], NDArray[np.float32]]
    ) -> None:
        """Choose from ``row(number)``, [vocabulary].

        Raises:
            InputError: llguidance refuses the grammar.
        """
        self._row = row
        self._matcher = None if sampling.grammar is None else vocabulary.matcher(sampling.grammar)
        self._chain = sampler_chain(sampling) if sampling.temperature > 0 else None

    def sample(self, row: int) -> int:
        """The next token, from a row of logits of the last decode.

        Raises:
            InputError: the grammar lets no token follow, or takes too long to say which.
        """
        import numpy as np

        logits = self._row(row)
        if self._matcher is None:
            return self._choose(logits, np.arange(len(logits)))
        allowed = self._matcher.allowed()
        token = self._choose(logits[allowed], allowed)
        self._matcher.take(token)
        return token

    def _choose(self, logits: NDArray[np.float32], ids: NDArray[np.intp]) -> int:
        import numpy as np

        if self._chain is None:
            return int(ids[logits.argmax()])
        candidates = np.empty(len(logits), dtype=CANDIDATE)
        candidates["id"] = ids
        candidates["logit"] = logits
        candidates["p"] = 0
        data = ctypes.cast(candidates.ctypes.data, ctypes.POINTER(llama.llama_token_data))
        array = llama.llama_token_data_array(data=data, size=len(candidates), selected=-1, sorted=False)
        llama.llama_sampler_apply(self._chain, ctypes.byref(array))
        token = int(array.data[array.selected].id)
        llama.llama_sampler_accept(self._chain, token)
        return token

    def close(self) -> None:
        """Free what belongs to the request."""
        self._matcher = None
        if self._chain:
            llama.llama_sampler_free(self._chain)
            self._chain = None
