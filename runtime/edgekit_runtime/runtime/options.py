"""What a request may say, and how its tokens are chosen then."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from edgekit_runtime.engines import Sampling, ThinkingBudget
from edgekit_runtime.errors import InputError, UsageError, shown
from edgekit_runtime.formats.images import Source
from edgekit_runtime.formats.sampling_defaults import PENALTIES, RULES
from edgekit_runtime.prompts.bounds import check_biases
from edgekit_runtime.prompts.chat import Message
from edgekit_runtime.runtime.calling import Choice

DEFAULTS = frozenset(RULES) - {"max_tokens"}  # of sampling, that an adapter may bring


class SamplingOptions(TypedDict, total=False):
    """How tokens are chosen; what is missing or None, the adapter says, or nothing is done.

    Attributes:
        temperature: 0 (greedy) unless the adapter says otherwise.
        top_k: sample from the k likeliest tokens only; 0 for all.
        top_p: sample from the likeliest tokens that have this probability together.
        min_p: sample from tokens that have this share of the likeliest one's probability.
        seed: same seed, same answer; a fresh one when None.
        repetition_penalty: makes tokens of prompt and answer less likely above 1, more likely below.
        repeat_last_n: only so many last ones; all when None or -1.
        frequency_penalty: -2 to 2, is taken from a token's logit for each time that the answer has it.
        presence_penalty: -2 to 2, is taken once from those of tokens that the answer has.
        logit_bias: by token id, what is added to its logit, -100 to 100.
        ignore_eos: go on until ``max_tokens``, whatever the model wants.
        min_tokens: so many at least, whatever the model wants.
    """

    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    seed: int | None
    repetition_penalty: float | None
    repeat_last_n: int | None
    frequency_penalty: float | None
    presence_penalty: float | None
    logit_bias: Mapping[int | str, float] | None
    ignore_eos: bool
    min_tokens: int | None


class Options(SamplingOptions, total=False):
    """What a request may say besides the prompt.

    Attributes:
        messages: a whole conversation instead: ``[{"role": …, "content": …}]``, where the content may be a list of
            ``{"type": "text", "text": …}`` and ``{"type": "image"}``.
        raw: a text or token ids to continue as they are instead, without template or system prompt; control tokens
            that are spelt in the text are some.
        adapter: its name; "base" for the bare base; "auto" for the one that the text is for; the bundle's default
            when None.  Its system prompt and its defaults apply.
        lora: adapters to apply together, with a scale of 0 to 2 each; the adapter alone, at 1, when None.
        max_tokens: where to cut the answer off; 256 unless the adapter says otherwise.  -1: where the context ends.
        stop: texts that end the answer and are not part of it.
        schema: JSON schema that the answer has to follow.
        regex: regular expression, of Rust's kind, that the whole answer has to match.
        grammar: GBNF or Lark that the answer has to follow.
        choice: texts, one of which is the answer.
        logprobs: log-probabilities of tokens are wanted, and of how many likeliest ones besides.
        echo: those of the prompt too.
        image: for caption bundles: a file, its bytes or a :class:`~edgekit_runtime.formats.images.Picture`, or
            several, in the order of their places in ``messages``; without places they come before the last
            question.
        tools: descriptions of functions that the model may call, as OpenAI's clients send them.
        tool_choice: ``auto`` (the default: the model decides), ``none`` (no call can come), ``required`` (one has to),
            or ``{"type": "function", "function": {"name": …}}`` (a call of this one).  Arguments are held to the
            functions' parameters.  ``text`` holds nothing and leaves calls in the text, as the model writes them.
        parallel_tool_calls: False for one call at most.
        template_arguments: variables that the chat template gets, ``{"enable_thinking": False}`` say; the
            adapter's when None.
        chat_template_kwargs: more of them, beside the adapter's; ``enable_thinking`` is the switch for reasoning that
            the template has, whatever its name there.
        reasoning_effort: "none", "low", "medium" or "high", where the template knows such.
        thinking_budget: most tokens of reasoning; its end tag comes then.
        add_generation_prompt: end the prompt with what comes before an answer; so it does when None.
        continue_final_message: continue the text of the last message instead.
    """

    messages: Sequence[Message] | None
    raw: str | Sequence[int] | None
    adapter: str | None
    lora: Mapping[str, float] | None
    max_tokens: int | None
    stop: Sequence[str]
    schema: dict[str, Any] | bool | None
    regex: str | None
    grammar: str | None
    choice: Sequence[str] | None
    logprobs: int | None
    echo: bool
    image: Source | Sequence[Source] | None
    tools: Sequence[Mapping[str, Any]]
    tool_choice: Choice | None
    parallel_tool_calls: bool | None
    template_arguments: Mapping[str, Any] | None
    chat_template_kwargs: Mapping[str, Any] | None
    reasoning_effort: str | None
    thinking_budget: int | None
    add_generation_prompt: bool | None
    continue_final_message: bool | None


# The model's own likeliest tokens, whatever an adapter brings: for whoever compares them with others'.
AS_IT_IS: dict[str, Any] = {"temperature": 0.0, **PENALTIES}


def sampling_of(
    given: SamplingOptions,
    defaults: Mapping[str, Any],
    *,
    grammar: str | None,
    vocabulary: int,
    thinking: ThinkingBudget | None,
) -> Sampling:
    """How a request's tokens are chosen.

    Args:
        given: what the request says.
        defaults: the adapter's ``generation``.
        grammar: that the answer follows.
        vocabulary: how many tokens the base has.
        thinking: the bound of its reasoning.

    Raises:
        TypeError: a name that is none, as a function's argument.
        UsageError: a value that means nothing.
        InputError: a bias for a token that there is not, or too many.
    """
    unknown = given.keys() - SamplingOptions.__annotations__.keys()
    if unknown:
        raise TypeError(f"a request has no option {', '.join(sorted(unknown))}")
    asked: dict[str, Any] = {name: value for name, value in defaults.items() if name in DEFAULTS}
    asked |= {name: value for name, value in given.items() if value is not None}
    seed = asked.pop("seed", None)
    biases = _biases(asked.pop("logit_bias", {}), vocabulary)
    numbers = {name: type(getattr(Sampling, name))(value) for name, value in asked.items() if value is not None}
    return Sampling(
        **numbers,
        seed=secrets.randbits(32) if seed is None else seed,
        grammar=grammar,
        logit_bias=biases,
        thinking=thinking,
    )


def first(*values: Any) -> Any:
    """The first value that is not None."""
    return next(value for value in values if value is not None)


def _biases(given: Mapping[int | str, float], vocabulary: int) -> tuple[tuple[int, float], ...]:
    """Biases by token id; JSON has texts for them."""
    check_biases(len(given))
    biases = {}
    for token, bias in given.items():
        try:
            number = int(token)
        except ValueError:
            raise UsageError(f"logit_bias has {shown(str(token))}, which is no token id", "send numbers") from None
        if not 0 <= number < vocabulary:
            raise InputError(
                f"logit_bias has token {number}, which the base doesn't know", f"use ids from 0 to {vocabulary - 1}"
            )
        biases[number] = float(bias)
    return tuple(sorted(biases.items()))
