"""How tokens are chosen: by llama.cpp's samplers, on every engine, so that the same seed draws the same tokens."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from llama_cpp import llama_cpp as llama

from edgekit_runtime.engines.base import Sampling
from edgekit_runtime.engines.llama.reasoned import Reasoned
from edgekit_runtime.engines.llama.vocabulary import LlamaVocabulary

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NEVER = 1 << 62
CANDIDATE = [("id", "<i4"), ("logit", "<f4"), ("p", "<f4")]  # llama_token_data


class Said(NamedTuple):
    """What penalties have to know: the prompt (images' cells in it are negative), and how many tokens the ``context``
    and the ``vocabulary`` have.
    """

    prompt: Sequence[int]
    context: int
    vocabulary: int


def sampler_chain(sampling: Sampling, said: Said) -> Any:
    """A chain of llama.cpp's samplers for a request."""
    chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
    steps = _adjusting(sampling, said)
    if sampling.temperature <= 0:
        steps.append(llama.llama_sampler_init_greedy())
    else:
        steps += [
            llama.llama_sampler_init_top_k(sampling.top_k),
            llama.llama_sampler_init_top_p(sampling.top_p, 1),
            *([llama.llama_sampler_init_min_p(sampling.min_p, 1)] if sampling.min_p else []),
            llama.llama_sampler_init_temp(sampling.temperature),
            llama.llama_sampler_init_dist(sampling.seed),
        ]
    for step in steps:
        llama.llama_sampler_chain_add(chain, step)
    return chain


def _adjusting(sampling: Sampling, said: Said) -> list[Any]:
    """The steps that change logits.  Two count tokens: one those of prompt and answer, one those of the answer."""
    steps = []
    if sampling.logit_bias:
        biases = (llama.llama_logit_bias * len(sampling.logit_bias))(*sampling.logit_bias)
        steps.append(llama.llama_sampler_init_logit_bias(said.vocabulary, len(biases), biases))
    if sampling.repeats:
        window = sampling.repeat_last_n if sampling.repeat_last_n > 0 else said.context
        step = llama.llama_sampler_init_penalties(said.vocabulary, window, sampling.repetition_penalty, 0.0, 0.0)
        for token in said.prompt[-window:]:
            if token >= 0:
                llama.llama_sampler_accept(step, token)
        steps.append(step)
    if sampling.frequency_penalty or sampling.presence_penalty:
        amounts = sampling.frequency_penalty, sampling.presence_penalty
        steps.append(llama.llama_sampler_init_penalties(said.vocabulary, said.context, 1.0, *amounts))
    return steps


class LogitsSampler:
    """A choice among those tokens that the request's grammar allows, from logits of any engine."""

    def __init__(
        self,
        vocabulary: LlamaVocabulary,
        sampling: Sampling,
        row: Callable[[int], NDArray[np.float32]],
        prompt: Sequence[int],
        context: int,
    ) -> None:
        """Choose from ``row(number)``, [vocabulary].

        Raises:
            InputError: llguidance refuses the grammar.
        """
        self._row = row
        self._matcher = None if sampling.grammar is None else vocabulary.matcher(sampling.grammar)
        self._ends = vocabulary.ends if sampling.holds_end else ()
        self._held = NEVER if sampling.ignore_eos else sampling.min_tokens
        self._count = 0
        self._thinking = None if sampling.thinking is None else Reasoned(sampling.thinking, vocabulary)
        plain = sampling.temperature <= 0 and not sampling.adjusts
        self._chain = None if plain else sampler_chain(sampling, Said(prompt, context, vocabulary.size))

    def sample(self, row: int) -> int:
        """The next token, from a row of logits of the last decode.

        Raises:
            InputError: the grammar lets no token follow, or takes too long to say which.
        """
        token = None if self._thinking is None else self._thinking.due()
        if token is None:
            logits = self._row(row)
            allowed = self._allowed(len(logits))
            token = int(self._choose(logits, None) if allowed is None else self._choose(logits[allowed], allowed))
        if self._chain is not None:
            llama.llama_sampler_accept(self._chain, token)
        if self._thinking is not None:
            self._thinking.take(token)
        self._count += 1
        if self._matcher is not None:
            self._matcher.take(token)
        return token

    def forced(self) -> list[int]:
        """The tokens that the grammar lets follow alone; they are taken."""
        if self._matcher is None or self._thinking is not None:
            return []
        tokens = self._matcher.forced()
        for token in tokens if self._chain is not None else ():
            llama.llama_sampler_accept(self._chain, token)
        self._count += len(tokens)
        return tokens

    def _allowed(self, tokens: int) -> NDArray[np.intp] | None:
        """The ids to choose from; None for all."""
        import numpy as np

        allowed = None if self._matcher is None else self._matcher.allowed()
        if not self._ends or self._count >= self._held:
            return allowed
        every = np.arange(tokens) if allowed is None else allowed
        going_on = every[~np.isin(every, self._ends)]
        return going_on if len(going_on) else allowed  # a grammar's answer is over

    def _choose(self, logits: NDArray[np.float32], ids: NDArray[np.intp] | None) -> int:
        import numpy as np

        if self._chain is None:
            best = logits.argmax()
            return int(best if ids is None else ids[best])
        candidates = np.empty(len(logits), dtype=CANDIDATE)
        candidates["id"] = np.arange(len(logits)) if ids is None else ids
        candidates["logit"] = logits
        candidates["p"] = 0
        data = ctypes.cast(candidates.ctypes.data, ctypes.POINTER(llama.llama_token_data))
        array = llama.llama_token_data_array(data=data, size=len(candidates), selected=-1, sorted=False)
        llama.llama_sampler_apply(self._chain, ctypes.byref(array))
        return int(array.data[array.selected].id)

    def close(self) -> None:
        """Free what belongs to the request."""
        self._matcher = None
        if self._chain:
            llama.llama_sampler_free(self._chain)
            self._chain = None
