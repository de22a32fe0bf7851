"""Which fields of requests this service knows, and what becomes of each.

A field is done, or taken with those values alone that change nothing, or noted; everything else is refused by name.
A field that stands in no table is answered without, and named in the header :data:`IGNORED`.  docs/api.md is made of
these tables.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edgekit_runtime.errors import InputError

IGNORED = "X-Edgekit-Ignored"
MOST_NAMED, LONGEST_NAME = 16, 48  # names in that header, and signs of each
_UNSAFE = re.compile(r"[^A-Za-z0-9_.$-]")
NOTHING: tuple[Any, ...] = ("", [], {}, False)  # what clients send for nothing


@dataclass(frozen=True)
class Parameter:
    """A field.

    Attributes:
        name: how it is spelt.
        does: what it means here, for the documentation.
        only: the values that are taken, where others are refused; None where any sound value is.
        instead: what to do when it is refused.
    """

    name: str
    does: str
    only: tuple[Any, ...] | None = None
    instead: str = "leave it out"

    def takes(self, value: Any) -> bool:
        """Whether a value is taken; null always is."""
        return self.only is None or value is None or any(_same(value, each) for each in self.only)


Table = Mapping[str, Parameter]
_CALLING = ("tools", "functions", "function_call")


def table(*groups: Iterable[Parameter]) -> Table:
    """Parameters by name; a later one takes the place of an earlier one."""
    return {each.name: each for group in groups for each in group}


def neutral(**values: Any) -> list[Parameter]:
    """Fields of others' services that are not done here: null and these values change nothing."""
    return [
        Parameter(name, "not available", each or NOTHING if isinstance(each, tuple) else (each,))
        for name, each in values.items()
    ]


_ASKED = [
    Parameter("model", "the adapter's name, or `base`"),
    Parameter("stream", "piece by piece, as server-sent events"),
    Parameter("stream_options", "`include_usage`: counts at the end of a stream"),
    Parameter("stop", "texts that end the answer"),
    Parameter("lora", 'adapters and scales for this request: `[{"id": NAME, "scale": 0.5}]`'),
]
_SAMPLING = [
    Parameter("temperature", "0 is greedy; the adapter's own value when it is missing"),
    Parameter("top_k", "sample from so many likeliest tokens; 0 and -1 mean all"),
    Parameter("top_p", "sample from the likeliest tokens that have this probability together"),
    Parameter("min_p", "sample from tokens that have this share of the likeliest one's probability"),
    Parameter("seed", "same seed, same answer; -1 and none mean a fresh one"),
    Parameter("n", "so many answers to each prompt, with the seeds `seed`, `seed` + 1, …"),
    Parameter("repetition_penalty", "over 1: tokens of prompt and answer become less likely"),
    Parameter("repeat_penalty", "llama-server's name of it"),
    Parameter("repeat_last_n", "only so many last tokens of prompt and answer; -1 (the default) means all"),
    Parameter("frequency_penalty", "-2 to 2, for each time that the answer has a token"),
    Parameter("presence_penalty", "-2 to 2, once for each token that the answer has"),
    Parameter("logit_bias", "by token id, -100 to 100"),
    Parameter("ignore_eos", "go on until `max_tokens`; with a schema or the like, until it ends"),
    Parameter("min_tokens", "no end before so many tokens; likewise"),
]
_FORMS = [
    Parameter("response_format", "`json_object`, or `json_schema` with a schema"),
    Parameter("structured_outputs", "vLLM's: one of `json`, `regex`, `choice`, `grammar`, `json_object`"),
    Parameter("json_schema", "llama-server's: a JSON schema"),
    Parameter("grammar", "GBNF or Lark that the answer follows"),
    Parameter("regex", "a regular expression that the whole answer matches"),
    Parameter("choice", "texts, one of which is the answer"),
    *(Parameter(f"guided_{form}", "vLLM's earlier spelling") for form in ("json", "regex", "grammar", "choice")),
]
# Nothing that this service does could depend on them.
_NOTED = [
    Parameter(name, "taken; nothing depends on it")
    for name in ("user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "request_id")
] + [
    Parameter(name, "taken; nothing depends on it, as what it belongs to is not available")
    for name in (
        *("mirostat_tau", "mirostat_eta", "dynatemp_exponent", "xtc_threshold"),
        *("dry_base", "dry_allowed_length", "dry_penalty_last_n", "dry_sequence_breakers"),
    )
]
_REFUSED = neutral(
    # OpenAI's
    audio=(),
    modalities=["text"],
    prediction=(),
    web_search_options=(),
    service_tier=("auto", "default"),
    store=False,
    verbosity="medium",
    # vLLM's
    use_beam_search=False,
    length_penalty=1,
    stop_token_ids=(),
    include_stop_str_in_output=False,
    skip_special_tokens=True,
    spaces_between_special_tokens=(True, False),
    truncate_prompt_tokens=(),
    prompt_logprobs=(),
    allowed_token_ids=(),
    bad_words=(),
    documents=(),
    chat_template=(),
    mm_processor_kwargs=(),
    priority=0,
    logits_processors=(),
    return_tokens_as_token_ids=False,
    return_token_ids=False,
    cache_salt=(),
    kv_transfer_params=(),
    vllm_xargs=(),
    # llama-server's
    n_keep=0,
    n_discard=0,
    n_indent=0,
    cache_prompt=True,
    id_slot=-1,
    dynatemp_range=0,
    typical_p=1,
    xtc_probability=0,
    mirostat=0,
    dry_multiplier=0,
    top_n_sigma=-1,
    samplers=(),
    n_probs=0,
    min_keep=0,
    post_sampling_probs=False,
    response_fields=(),
    return_tokens=False,
    timings_per_token=False,
    t_max_predict_ms=(0, -1),
    return_progress=False,
)
_LIMIT = Parameter("max_tokens", "where to cut the answer off; -1: where the context ends")

CHAT = table(
    _ASKED,
    _SAMPLING,
    _FORMS,
    _NOTED,
    _REFUSED,
    neutral(echo=False, add_special_tokens=False),
    [
        Parameter("functions", "not available", NOTHING, "send tools instead"),
        Parameter("function_call", "not available", NOTHING, "send tool_choice instead"),
        Parameter("tools", "functions that the model may call, see [tools](tools.md)"),
        Parameter("tool_choice", "`auto`, `none`, `required`, or a function by name"),
        Parameter("parallel_tool_calls", "false: one call at most"),
        Parameter("messages", "the conversation; contents are text, or parts of text and `image_url`"),
        _LIMIT,
        Parameter("max_completion_tokens", "the same"),
        Parameter("n_predict", "the same"),
        Parameter("continue_final_message", "continue the text of the last message, the assistant's say"),
        Parameter("add_generation_prompt", "false: the prompt ends with the last message"),
        Parameter("reasoning_effort", "`none`, or `low`, `medium`, `high` where the base's template knows efforts"),
        Parameter("enable_thinking", "reasoning on or off, where the template has a switch"),
        Parameter("chat_template_kwargs", "variables of the template, `enable_thinking` say"),
        Parameter("thinking_budget", "most tokens of reasoning: its end tag comes then; -1: no bound"),
        Parameter("reasoning_budget", "llama-server's name of it"),
        Parameter("reasoning_format", "`none` leaves reasoning in `content`; `auto`, `deepseek`: `reasoning_content`"),
        Parameter("include_reasoning", "false: reasoning is left out of the answer"),
        Parameter("logprobs", "log-probabilities of the answer's tokens"),
        Parameter("top_logprobs", "and of so many likeliest others"),
    ],
)
COMPLETION = table(
    _ASKED,
    _SAMPLING,
    _FORMS,
    _NOTED,
    _REFUSED,
    neutral(suffix=(), add_special_tokens=True, tool_choice=("none", "auto"), parallel_tool_calls=(True, False)),
    [
        *(
            Parameter(name, "not available", NOTHING, "use /v1/chat/completions")
            for name in ("tools", "functions", "function_call")
        ),
        Parameter("prompt", "text or token ids to continue as they are, or a list of either"),
        _LIMIT,
        Parameter("n_predict", "the same"),
        Parameter("logprobs", "log-probabilities of tokens, and of so many likeliest others"),
        Parameter("best_of", "has to be `n`"),
        Parameter("echo", "the prompt before the answer, with its log-probabilities"),
    ],
)
EMBEDDINGS = table(
    [
        Parameter("model", "the adapter's name, or `base`"),
        Parameter("input", "text or token ids, or a list of either"),
        Parameter("encoding_format", "`float` or `base64` (float32, little-endian)"),
        Parameter("dimensions", "only so many first numbers of each vector, which gets length 1 again"),
        Parameter("lora", 'adapters and scales for this request: `[{"id": NAME, "scale": 0.5}]`'),
        Parameter("user", "taken; nothing depends on it"),
    ],
    neutral(truncate_prompt_tokens=(), add_special_tokens=True, normalize=True, embd_normalize=2),
)
LOAD = table(
    [
        Parameter("lora_name", "the name that requests use"),
        Parameter("lora_path", "the adapter's file on the server"),
        Parameter("load_inplace", "take the place of the adapter that has this name"),
        Parameter("allow_downgrade", "and be an older version than it"),
    ],
    neutral(base_model_name=(), is_3d_lora_weight=False),
)
UNLOAD = table([Parameter("lora_name", "the adapter")], neutral(lora_int_id=()))
_CONVERSATION = [
    Parameter("chat_template_kwargs", "variables of the base's template"),
    Parameter("tools", "functions that the prompt tells of"),
    Parameter("model", "the adapter whose system prompt applies, or `base`"),
    Parameter("messages", "a conversation"),
    Parameter("add_generation_prompt", "false: its prompt ends with the last message"),
    Parameter("continue_final_message", "its prompt ends with the text of the last message"),
]
TEMPLATE = table(_CONVERSATION, neutral(chat_template=(), documents=()))
TOKENIZE = table(
    _CONVERSATION,
    neutral(chat_template=(), documents=(), mm_processor_kwargs=()),
    [
        Parameter("prompt", "a text, as at vLLM"),
        Parameter("content", "a text, as at llama-server"),
        Parameter("add_special_tokens", "of `prompt`: false leaves BOS out"),
        Parameter("add_special", "of `content`: true puts BOS before it"),
        Parameter("parse_special", "false: control tokens that are spelt in a text are none"),
        Parameter("return_token_strs", "the text of each token beside"),
        Parameter("with_pieces", "each token with its text, as at llama-server"),
    ],
)
DETOKENIZE = table([Parameter("model", "taken; all have the base's tokens"), Parameter("tokens", "token ids")])
STREAM_OPTIONS = table(
    [Parameter("include_usage", "")], neutral(include_obfuscation=False, continuous_usage_stats=False)
)


def is_nothing(parameter: Parameter) -> bool:
    """Whether a parameter is taken with no value at all, but for those that say nothing."""
    return parameter.only == NOTHING


def check(document: Mapping[str, Any], known: Table, within: str = "") -> tuple[str, ...]:
    """Look at the fields of a body before any is read.

    Args:
        document: the body, or an object in it.
        known: what this service knows of it.
        within: the name of that object.

    Returns:
        The names of fields that nobody knows, to be told to the client.

    Raises:
        InputError: a field that is known and not done here, or not with this value.
    """
    unknown = []
    for name, value in document.items():
        parameter = known.get(name)
        if parameter is None:
            unknown.append(f"{within}.{name}" if within else name)
        elif parameter.only is not None and not parameter.takes(value):
            _refuse(f"{within}.{name}" if within else name, parameter.only, parameter.instead)
    return tuple(unknown)


def _same(value: Any, other: Any) -> bool:
    """Whether two values are the same JSON; 1 and 1.0 are, 1 and true are not."""
    return isinstance(value, bool) == isinstance(other, bool) and bool(value == other)


def _refuse(name: str, only: tuple[Any, ...], instead: str) -> None:
    if only == NOTHING:
        raise InputError(f"{name} is not available", instead)
    words = " or ".join(json.dumps(each) for each in only)
    raise InputError(f"{name} has to be {words} here", instead)


def header_of(ignored: Iterable[str]) -> dict[str, str]:
    """The header that names what was left out of account; none where that is nothing.

    Names come from anywhere: what may not stand in a header is written as ``?``, and there is an end to them.
    """
    names = sorted(set(ignored))
    if not names:
        return {}
    told = [_UNSAFE.sub("?", name[:LONGEST_NAME]) or "?" for name in names[:MOST_NAMED]]
    left = len(names) - MOST_NAMED
    return {IGNORED: ", ".join([*told, f"and {left} more"] if left > 0 else told)}
